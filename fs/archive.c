/*
 * archive.c - making and removing archives, as operations of their session.
 */
#include "change.h"

#include <errno.h>

/* Appends {"op":OP,"name":KEY,"keys":[]}, if the archive is there or is not, as it must be. */
static int append_operation(struct fs *fs, uint32_t session, const char *op, const char *key,
                            size_t len, bool present)
{
    struct change change = {0};
    struct hl_error err = {0};

    text_format(&change.lines, "{\"op\":\"%s\",\"name\":", op);
    text_json_string(&change.lines, key, len);
    text_format(&change.lines, ",\"keys\":[]}\n");
    if (present)
        change_expect(&change, HL_AREA_ARCHIVES, key, len, HL_DOCUMENT_SEQ_ANY);
    else
        change_expect_absent(&change, HL_AREA_ARCHIVES, key, len);
    return change_apply(fs, session, &change, NULL, &err);
}

int archive_make(struct fs *fs, const struct node *parent, const char *name, struct node *node)
{
    char key[HL_KEY_MAX + 1];
    size_t len;

    if (fs->options->read_only)
        return -EROFS;
    int result = name_decode(name, key, &len);
    if (result == 0 && !hl_session_id_valid(key, len))
        result = -EINVAL;
    if (result == 0)
        result = append_operation(fs, parent->session, "archive", key, len, false);
    return result < 0 ? result : fs_resolve(fs, parent, name, node);
}

int archive_remove(struct fs *fs, const struct node *parent, const char *name)
{
    char key[HL_KEY_MAX + 1];
    size_t len;

    if (fs->options->read_only)
        return -EROFS;
    int result = fs_key(name, key, &len);
    /* One that is not empty is refused by the store, which alone knows it at that moment. */
    if (result == 0)
        result = append_operation(fs, parent->session, "restore", key, len, true);
    return result;
}
