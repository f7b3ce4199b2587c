/* SPDX-License-Identifier: Apache-2.0 */
/* hash - see hash.h. */
#include "base/hash.h"

const struct kvbi_hash_ops *kvbi_hash_select(enum kvbi_isa isa)
{
#if defined(__x86_64__)
    if (isa == KVBI_ISA_AVX512)
        return &kvbi_hash_avx512;
    if (isa == KVBI_ISA_AVX2)
        return &kvbi_hash_avx2;
#else
    (void)isa;
#endif
    return &kvbi_hash_baseline;
}
