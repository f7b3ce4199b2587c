/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How long a test waits for what must happen before it says that it did not. For failures only: a
 * test that passes never waits for it, however busy the machine is. Below the limit of ctest, so
 * that the failure has a name.
 */
#ifndef KVB_TEST_GIVE_UP_H
#define KVB_TEST_GIVE_UP_H

#define KV_GIVE_UP_S 240
#define KV_GIVE_UP_MS (KV_GIVE_UP_S * 1000)

#endif
