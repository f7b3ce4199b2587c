/* SPDX-License-Identifier: Apache-2.0 */
/* The tier DEVICE in host memory. See kv_device.h. */
#include "support/kv_device.h"

bool kv_device_is_cuda(void)
{
    return false;
}

void kv_device_start(struct kvb_tier_config *tiers, uint32_t count)
{
    (void)tiers, (void)count;
}

size_t kv_device_end(void)
{
    return 0;
}

void kv_device_let_go(void)
{
}

bool kv_device_moved(struct kvb_manager *kv)
{
    (void)kv;
    return false;
}

unsigned char *kv_device_begin_write(void *address, size_t bytes)
{
    (void)bytes;
    return address;
}

void kv_device_end_write(void *address, unsigned char *written, size_t bytes)
{
    (void)address, (void)written, (void)bytes;
}

const unsigned char *kv_device_read(const void *address, size_t bytes)
{
    (void)bytes;
    return address;
}

void kv_device_end_read(const void *address, const unsigned char *bytes)
{
    (void)address, (void)bytes;
}
