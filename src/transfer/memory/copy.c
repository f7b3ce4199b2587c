/* SPDX-License-Identifier: Apache-2.0 */
/* copy - see copy.h. */
#include "transfer/memory/copy.h"

#include <string.h>

static void copy_baseline(void *to, const void *from, size_t bytes)
{
    if (bytes > 0) /* NULL is legal then, and memcpy takes none */
        memcpy(to, from, bytes);
}

const struct kvbi_copy_ops kvbi_copy_baseline = {.copy = copy_baseline, .name = "baseline"};

const struct kvbi_copy_ops *kvbi_copy_select(enum kvbi_isa isa)
{
#if defined(__x86_64__)
    if (isa >= KVBI_ISA_AVX2)
        return &kvbi_copy_avx2;
#else
    (void)isa;
#endif
    return &kvbi_copy_baseline;
}
