/* SPDX-License-Identifier: Apache-2.0 */
/*
 * error - names and texts of the error codes
 *
 * Owns kvb_strerror and kvb_error_name; both read constant data and may be called from any thread,
 * at any time, in a signal handler or a forked child too. The codes themselves are KVB_ERROR_MAP in
 * the public header, so that code, name and text cannot drift apart. Takes no lock.
 */
#include <kvblock.h>

const char *kvb_strerror(int code)
{
    switch (code) {
    case 0:
        return "success";
#define X(name, number, text)                                                                      \
    case number:                                                                                   \
        return text;
        KVB_ERROR_MAP(X)
#undef X
    default:
        return "unknown error";
    }
}

const char *kvb_error_name(int code)
{
    switch (code) {
    case 0:
        return "KVB_OK";
#define X(name, number, text)                                                                      \
    case number:                                                                                   \
        return "KVB_" #name;
        KVB_ERROR_MAP(X)
#undef X
    default:
        return "KVB_UNKNOWN";
    }
}
