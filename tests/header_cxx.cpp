// SPDX-License-Identifier: Apache-2.0
// The public header, first and alone, in C++17.
#include <kvblock.h>

int header_cxx();

int header_cxx()
{
    return kvb_strerror(0) != nullptr;
}
