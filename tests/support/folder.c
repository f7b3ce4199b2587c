/* SPDX-License-Identifier: Apache-2.0 */
#include "support/folder.h"

#include <dirent.h>
#include <fcntl.h>
#include <glob.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "support/leftovers.h"
#include "support/test.h"

/* All folders of this process with one parent and name begin with it. */
struct prefix {
    char text[FOLDER_BYTES - 8];
};

static struct prefix known[8];
#define KNOWN (sizeof known / sizeof *known)

const char *folder_parent(void)
{
    const char *parent = getenv("TMPDIR");
    return parent != NULL && strlen(parent) < 32 ? parent : "/tmp";
}

static void name_prefix(struct prefix *prefix, const char *parent, const char *name)
{
    (void)snprintf(prefix->text, sizeof prefix->text, "%s%s%s.%ld", parent == NULL ? "" : parent,
                   parent == NULL ? "" : "/", name, (long)getpid());
}

bool folder_remove_at_end(const char *parent, const char *name)
{
    struct prefix wanted;
    size_t at = 0;
    name_prefix(&wanted, parent, name);
    while (at < KNOWN && known[at].text[0] != '\0' && strcmp(known[at].text, wanted.text) != 0)
        at++;
    if (at == KNOWN)
        return false;
    if (known[at].text[0] != '\0')
        return true;
    static char shell[] = "/bin/sh", option[] = "-c", script[] = "rm -rf \"$0\".*";
    known[at] = wanted;
    char *const command[] = {shell, option, script, known[at].text, NULL};
    return leftovers_at_end(command);
}

bool folder_make(char folder[FOLDER_BYTES], const char *parent, const char *name)
{
    struct prefix prefix;
    name_prefix(&prefix, parent, name);
    (void)snprintf(folder, FOLDER_BYTES, "%s.XXXXXX", prefix.text);
    if (folder_remove_at_end(parent, name) && mkdtemp(folder) != NULL)
        return true;
    perror(folder);
    return false;
}

void folder_remove(const char *folder)
{
    (void)chmod(folder, 0700); /* a test may have taken that away */
    DIR *entries = opendir(folder);
    for (struct dirent *entry; entries != NULL && (entry = readdir(entries)) != NULL;)
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0 &&
            unlinkat(dirfd(entries), entry->d_name, 0) != 0)
            (void)unlinkat(dirfd(entries), entry->d_name, AT_REMOVEDIR);
    if (entries != NULL)
        (void)closedir(entries);
    (void)rmdir(folder);
}

uint32_t folder_files(const char *folder)
{
    uint32_t count = 0;
    DIR *entries = opendir(folder);
    assert_non_null(entries);
    for (struct dirent *entry; (entry = readdir(entries)) != NULL;)
        count += entry->d_name[0] != '.';
    (void)closedir(entries);
    return count;
}

uint32_t folders_left(void)
{
    char pattern[FOLDER_BYTES];
    uint32_t count = 0;
    for (size_t i = 0; i < KNOWN && known[i].text[0] != '\0'; i++) {
        glob_t found;
        (void)snprintf(pattern, sizeof pattern, "%s.*", known[i].text);
        if (glob(pattern, GLOB_NOSORT, NULL, &found) == 0) {
            count += (uint32_t)found.gl_pathc;
            globfree(&found);
        }
    }
    return count;
}
