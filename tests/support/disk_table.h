/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A disk tier's table that takes no entries any more: neither through its mapping nor by writing
 * (KVB_ENOSPC). Before the tier closes.
 */
#ifndef KVB_TEST_DISK_TABLE_H
#define KVB_TEST_DISK_TABLE_H

#include "transfer/disk/file.h"

void disk_table_break(const struct kvbi_disk_file *file);

#endif
