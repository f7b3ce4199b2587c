/* SPDX-License-Identifier: Apache-2.0 */
#include "plan.h"

uint64_t crash_mix(uint64_t x)
{
    x += UINT64_C(0x9e3779b97f4a7c15);
    x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
    return x ^ (x >> 31);
}

uint32_t crash_random(uint64_t *seed, uint32_t bound)
{
    *seed += 1;
    return (uint32_t)((crash_mix(*seed) >> 20) % bound);
}

uint32_t crash_key_of(const struct crash_files *files, uint32_t number)
{
    return files->keyed && number % 4 == 3 && number >= files->first + 3 ? number - 3 : number;
}

void crash_tokens(uint32_t number, uint32_t tokens[CRASH_TOKENS])
{
    for (uint32_t i = 0; i < CRASH_TOKENS; i++)
        tokens[i] = i == 0 ? number : (uint32_t)crash_mix((uint64_t)number << 8 | i);
}

uint64_t crash_word(uint32_t number, size_t index)
{
    return crash_mix(number) + index * UINT64_C(0xd1342543de82ef95);
}
