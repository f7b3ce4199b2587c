/* SPDX-License-Identifier: Apache-2.0 */
/* The public header, first and alone, in C99. */
#include <kvblock.h>

int header_c99(void);

int header_c99(void)
{
    return kvb_strerror(0) != 0;
}
