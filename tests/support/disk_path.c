/* SPDX-License-Identifier: Apache-2.0 */
#include "support/disk_path.h"

#include <stdio.h>
#include <stdlib.h>

#define NAME "disk_test"

void disk_path_remove_at_end(void)
{
    (void)folder_remove_at_end(NULL, NAME);
}

void disk_path_make(struct disk_path *place)
{
    if (!folder_make(place->directory, NULL, NAME))
        abort();
    (void)snprintf(place->file, sizeof place->file, "%s/blocks", place->directory);
}

void disk_path_remove(const struct disk_path *place)
{
    folder_remove(place->directory);
}
