/*
 * attr.c - what a name or an id stands for, and its attributes.
 */
#include "state.h"

#include <errno.h>
#include <string.h>

#define LOG_BLOCK (128 * 1024)
#define FILE_BLOCK 4096
/* A session's directory gets a new mtime with each record; how late the kernel may show it, in
 * seconds. Its bits change through the kernel only, which knows them at once. */
#define DIRECTORY_KEEP 1.0

/* ---- nodes ------------------------------------------------------------------------------------
 */

bool node_is_directory(const struct node *node)
{
    switch (node->kind) {
    case NODE_ROOT:
    case NODE_SESSIONS:
    case NODE_SESSION:
    case NODE_STATE:
    case NODE_HISTORY:
    case NODE_ARCHIVES:
    case NODE_ARCHIVE:
    case NODE_AT:
    case NODE_AT_SEQ:
        return true;
    default:
        return false;
    }
}

bool node_takes_writes(const struct node *node)
{
    return node->kind == NODE_APPEND || node->kind == NODE_ROOT_APPEND || node->kind == NODE_CTL ||
           node->kind == NODE_DOCUMENT || node->kind == NODE_SCRATCH;
}

int fs_node(struct fs *fs, fuse_ino_t id, struct node *node)
{
    if (node_from_id(id, node))
        return 0;
    if (node_id_in_table(id) && table_find(fs->table, id, node))
        return 0;
    return -ESTALE;
}

uint64_t fs_id(struct fs *fs, const struct node *node)
{
    uint64_t id;
    return node_to_id(node, &id) ? id : table_look_up(fs->table, node);
}

void fs_forget(struct fs *fs, fuse_ino_t id, uint64_t count)
{
    if (node_id_in_table(id))
        table_forget(fs->table, id, count);
}

/* ---- names ------------------------------------------------------------------------------------
 */

static bool resolve_fixed(const struct node *parent, const char *name, struct node *node)
{
    size_t count;
    const struct node_entry *entries = node_entries(parent->kind, &count);

    for (size_t i = 0; i < count; i++) {
        if (strcmp(entries[i].name, name) == 0) {
            *node = (struct node){.kind = entries[i].kind, .session = parent->session};
            return true; /* of which generation it is: fs_attr_now() */
        }
    }
    return false;
}

int fs_key(const char *name, char key[HL_KEY_MAX + 1], size_t *len)
{
    int result = name_decode(name, key, len);
    if (result == -EINVAL || (result == 0 && !hl_session_id_valid(key, *len)))
        return -ENOENT;
    return result;
}

static int resolve_session(struct fs *fs, const char *name, struct node *node)
{
    char id[HL_ID_MAX + 1];
    size_t len;
    struct hl_session session;

    int result = fs_key(name, id, &len);
    if (result == 0)
        result = hl_session_by_id(fs->store, id, len, &session);
    if (result < 0)
        return result;
    *node = (struct node){.kind = NODE_SESSION, .session = session.number};
    return 0;
}

int fs_resolve(struct fs *fs, const struct node *parent, const char *name, struct node *node)
{
    if (strlen(name) > NODE_NAME_MAX)
        return -ENAMETOOLONG;
    if (parent->kind == NODE_SESSIONS)
        return resolve_session(fs, name, node);
    if (parent->kind == NODE_STATE)
        return state_resolve(fs, parent, name, node);
    if (resolve_fixed(parent, name, node))
        return 0;
    if (parent->kind != NODE_SESSION)
        return view_resolve(fs, parent, name, node);
    if (strcmp(name, "follow") == 0 || strcmp(name, "at") == 0) {
        *node =
            (struct node){.kind = *name == 'f' ? NODE_FOLLOW : NODE_AT, .session = parent->session};
        return 0;
    }
    *node = (struct node){.kind = NODE_RECORD, .session = parent->session};
    if (name_seq(name, &node->a))
        return 0; /* whether there is such a record is found out with its attributes */
    node->kind = NODE_RANGE;
    return name_range(name, node) ? 0 : -ENOENT;
}

/* ---- attributes -------------------------------------------------------------------------------
 */

/* Wherever the directory may be written, `append` may, and its answer read. */
static mode_t append_mode(mode_t directory)
{
    mode_t write = directory & 0222;
    return write | write << 1;
}

mode_t fs_file_mode(enum node_kind kind, mode_t directory)
{
    switch (kind) {
    case NODE_APPEND:
        return append_mode(directory);
    case NODE_DOCUMENT:
    case NODE_SCRATCH:
        return directory & 0666;
    case NODE_ARCHIVES: /* archives are made and removed in it, */
    case NODE_ARCHIVE:  /* and documents moved in and out */
        return directory & 01777;
    case NODE_HISTORY:
    case NODE_AT:
    case NODE_AT_SEQ:
        return directory & 0555;
    default:
        return directory & 0444;
    }
}

uid_t fs_owner(const struct fs *fs, const struct hl_session *session)
{
    return fs->uid == 0 ? session->uid : fs->uid;
}

static void set_time(struct stat *st, uint64_t ms)
{
    struct timespec time = {.tv_sec = (time_t)(ms / 1000), .tv_nsec = (long)(ms % 1000) * 1000000};
    st->st_atim = st->st_mtim = st->st_ctim = time;
}

void fs_attr_size(struct fs_attr *attr, uint64_t size)
{
    attr->st.st_size = (off_t)size;
    attr->st.st_blocks = (blkcnt_t)((size + 511) / 512);
}

void fs_attr_begin(struct fs_attr *attr, const struct node *node, mode_t mode, uid_t uid, gid_t gid,
                   uint64_t ms)
{
    *attr = (struct fs_attr){.attr_keep = 0, .entry_keep = 0};
    attr->st.st_ino = node_inode(node);
    attr->st.st_mode = mode;
    attr->st.st_uid = uid;
    attr->st.st_gid = gid;
    attr->st.st_nlink = 1;
    attr->st.st_blksize = FILE_BLOCK;
    set_time(&attr->st, ms);
}

static int attr_fixed(struct fs *fs, const struct node *node, struct fs_attr *attr)
{
    bool others = fs->options->allow_other;
    uint64_t size = 0;
    int result = 0;
    struct text text = {0};

    switch (node->kind) {
    case NODE_ROOT:
        fs_attr_begin(attr, node, S_IFDIR | 0755, fs->uid, fs->gid, fs->started_ms);
        attr->attr_keep = fs->keep;
        break;
    case NODE_SESSIONS:
        fs_attr_begin(attr, node, S_IFDIR | (others ? 01777 : 0755), fs->uid, fs->gid,
                      atomic_load(&fs->sessions_changed_ms));
        attr->attr_keep = DIRECTORY_KEEP;
        break;
    case NODE_CTL:
        fs_attr_begin(attr, node, S_IFREG | 0600, fs->uid, fs->gid, fs->started_ms);
        size = ctl_size(fs->ctl);
        break;
    case NODE_STATUS:
    case NODE_METRICS:
        fs_attr_begin(attr, node, S_IFREG | 0444, fs->uid, fs->gid, fs_now_ms());
        result = text_make(fs, node, true, &text);
        size = text.len;
        text_free(&text);
        break;
    case NODE_ROOT_APPEND:
        fs_attr_begin(attr, node, S_IFREG | 0200, fs->uid, fs->gid, fs->started_ms);
        attr->attr_keep = fs->keep;
        break;
    case NODE_ROOT_LOG:
        fs_attr_begin(attr, node, S_IFREG | 0400, fs->uid, fs->gid, atomic_load(&fs->changed_ms));
        result = hl_root_log_size(fs->store, &size);
        if (result == 0 && !dropped_size(fs->dropped, node, &size))
            result = -ESTALE;
        attr->st.st_blksize = LOG_BLOCK;
        break;
    default:
        return -ESTALE;
    }
    fs_attr_size(attr, size);
    /* Its name can come to stand for another inode. */
    attr->entry_keep = node->kind == NODE_ROOT_LOG || node->kind == NODE_CTL ? 0 : fs->keep;
    return result;
}

void fs_attr_session(struct fs *fs, const struct hl_session *session, struct fs_attr *attr)
{
    struct node node = {.kind = NODE_SESSION, .session = session->number};

    fs_attr_begin(attr, &node, S_IFDIR | (session->mode & 07777), fs_owner(fs, session),
                  session->gid, session->changed_ms);
    attr->attr_keep = DIRECTORY_KEEP;
    attr->entry_keep = fs->keep;
}

void fs_attr_view(struct fs *fs, const struct node *node, const struct hl_session *session,
                  uint64_t size, uint64_t ms, double keep, struct fs_attr *attr)
{
    mode_t type = node_is_directory(node) ? S_IFDIR : S_IFREG;

    fs_attr_begin(attr, node, type | fs_file_mode(node->kind, session->mode), fs_owner(fs, session),
                  session->gid, ms);
    fs_attr_size(attr, size);
    attr->attr_keep = attr->entry_keep = keep;
}

void fs_attr_record(struct fs *fs, const struct hl_session *session, const struct hl_record *record,
                    struct fs_attr *attr)
{
    struct node node = {.kind = NODE_RECORD, .session = session->number, .a = record->seq};

    fs_attr_begin(attr, &node, S_IFREG | fs_file_mode(NODE_RECORD, session->mode),
                  fs_owner(fs, session), session->gid, record->ts_ms);
    fs_attr_size(attr, record->length);
    attr->attr_keep = attr->entry_keep = notify_thin(session) ? DIRECTORY_KEEP : fs->keep;
}

static int attr_range(struct fs *fs, const struct node *node, const struct hl_session *session,
                      struct fs_attr *attr)
{
    uint64_t from, to;
    bool closed = fs_range_closed(node, session);
    uint64_t ms = session->changed_ms;
    struct hl_record last;

    int result = fs_range_extent(fs, node, &from, &to);
    if (result < 0)
        return result;
    uint64_t size = to - from;
    /* Of one that never changed nobody must see another size than its pages have. */
    if (closed ? dropped_is_old(fs->dropped, node) : !dropped_size(fs->dropped, node, &size))
        return -ESTALE;
    /* What never changes has a time that never does. */
    if (closed) {
        struct node at_end = {.kind = NODE_RECORD, .session = node->session, .a = node->b};
        ms = fs_record(fs, &at_end, &last) == 0 ? last.ts_ms : session->created_ms;
    }
    fs_attr_begin(attr, node, S_IFREG | fs_file_mode(NODE_RANGE, session->mode),
                  fs_owner(fs, session), session->gid, ms);
    fs_attr_size(attr, size);
    attr->st.st_blksize = LOG_BLOCK;
    attr->attr_keep = attr->entry_keep = closed ? fs->keep : 0;
    return 0;
}

int fs_attr_file(struct fs *fs, const struct node *node, const struct hl_session *session,
                 struct fs_attr *attr)
{
    struct text text = {0};
    struct last_error error;
    uint64_t size = session->bytes;
    int result = 0;

    fs_attr_begin(attr, node, S_IFREG | fs_file_mode(node->kind, session->mode),
                  fs_owner(fs, session), session->gid, session->changed_ms);
    attr->entry_keep = fs->keep;
    switch (node->kind) {
    case NODE_STATE:
        attr->st.st_mode = S_IFDIR | (session->mode & 0777);
        attr->attr_keep = DIRECTORY_KEEP;
        break;
    case NODE_APPEND:
        set_time(&attr->st, session->created_ms);
        attr->attr_keep = fs->keep;
        break;
    case NODE_LOG:
        result = dropped_size(fs->dropped, node, &size) ? 0 : -ESTALE;
        fs_attr_size(attr, size);
        attr->st.st_blksize = LOG_BLOCK;
        attr->entry_keep = 0; /* its name can come to stand for another inode */
        break;
    case NODE_FOLLOW:
        break; /* it has no size */
    case NODE_HISTORY:
    case NODE_ARCHIVES:
    case NODE_AT:
        attr->st.st_mode ^= S_IFREG ^ S_IFDIR;
        attr->attr_keep = DIRECTORY_KEEP;
        break;
    case NODE_LAST_ERROR:
        if (last_errors_get(fs->last_errors, session->number, &error))
            set_time(&attr->st, error.ts_ms);
        else
            set_time(&attr->st, session->created_ms);
        /* fall through */
    case NODE_META:
        result = text_make(fs, node, true, &text);
        fs_attr_size(attr, text.len);
        text_free(&text);
        break;
    default:
        return -ESTALE;
    }
    return result;
}

int fs_attr(struct fs *fs, const struct node *node, struct fs_attr *attr)
{
    struct hl_session session;
    struct hl_record record;

    if (node->session == 0)
        return attr_fixed(fs, node, attr);
    int result = hl_session_by_number(fs->store, node->session, &session);
    if (result < 0)
        return result;
    if (fs->options->read_only)
        dropped_seen(fs->dropped, session.number, session.gone);
    switch (node->kind) {
    case NODE_SESSION:
        fs_attr_session(fs, &session, attr);
        return 0;
    case NODE_RECORD:
        result = fs_record(fs, node, &record);
        if (result == 0)
            fs_attr_record(fs, &session, &record, attr);
        return result;
    case NODE_RANGE:
        return attr_range(fs, node, &session, attr);
    case NODE_ARCHIVE:
    case NODE_ARCHIVED:
    case NODE_HISTORY_KEY:
    case NODE_AT_SEQ:
    case NODE_AT_KEY:
        return view_attr(fs, node, &session, attr);
    case NODE_DOCUMENT:
    case NODE_SCRATCH:
        return state_attr(fs, node, &session, attr);
    default:
        return fs_attr_file(fs, node, &session, attr);
    }
}

int fs_attr_now(struct fs *fs, struct node *node, struct fs_attr *attr)
{
    uint32_t generation;
    int result;

    if (node->kind == NODE_CTL)
        node->generation = ctl_generation(fs->ctl);
    if (!node_has_generation(node->kind))
        return fs_attr(fs, node, attr);
    do {
        node->generation = generation = dropped_generation(fs->dropped, node->session);
        result = fs_attr(fs, node, attr);
    } while ((result == 0 || result == -ESTALE) &&
             dropped_generation(fs->dropped, node->session) != generation);
    return result;
}

/* ---- records and ranges -----------------------------------------------------------------------
 */

struct one_record {
    uint64_t seq;
    bool found;
    struct hl_record record;
};

static bool take_one(void *context, const struct hl_record *record)
{
    struct one_record *one = context;

    one->found = record->seq == one->seq;
    if (one->found)
        one->record = (struct hl_record){.seq = record->seq, .length = record->length};
    return false;
}

int fs_record(struct fs *fs, const struct node *node, struct hl_record *record)
{
    int result = hl_record_find(fs->store, node->session, node->a, record);
    if (result != -EBADMSG)
        return result;
    /* It is there, if only to be seen: reading it is what fails. */
    struct one_record one = {.seq = node->a};
    result = hl_record_list(fs->store, node->session, node->a, false, take_one, &one);
    if (result == 0 && !one.found)
        result = -ENOENT;
    *record = one.record;
    return result;
}

bool fs_range_closed(const struct node *node, const struct hl_session *session)
{
    return !node->open && session->has_seq && node->b <= session->last_seq;
}

int fs_range_extent(struct fs *fs, const struct node *node, uint64_t *from, uint64_t *to)
{
    int result = hl_log_extent(fs->store, node->session, node->a, node->b, from, to);
    if (result == 0 && *to < *from)
        return -EIO;
    return result;
}
