# SPDX-License-Identifier: Apache-2.0
# locks: a function that other files call with a lock held, ..._locked, asserts that it is.

function locks_begin_file() {
    locked = ""
    in_locked = 0
}

function locks_line(code) {
    if (in_locked) {
        if (code ~ /kvbi_lock_assert_held *\(/)
            asserted = 1
        if (code ~ /^}/) {
            if (!asserted)
                told_of(FILENAME, locked_line, locked " does not assert its lock")
            locked = ""
            in_locked = 0
        }
        return
    }
    if (code ~ /^[A-Za-z_].*_locked *\(/ && (code !~ /^static / || header)) {
        locked = code
        sub(/ *\(.*/, "", locked)
        sub(/.*[ *]/, "", locked)
        locked_line = FNR
    }
    if (locked == "")
        return
    if (code == "{") {
        in_locked = 1
        asserted = 0
    } else if (code ~ /;$/) {
        locked = "" # declared only
    }
}
