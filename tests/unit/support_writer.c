/* support_writer.c - see support_writer.h. */
#include "support_writer.h"

#include <inttypes.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

void t_write_some(struct t_store *t, uint64_t *chance)
{
    static const char *const ids[] = {"a", "b", "c"};
    char text[600];
    for (unsigned i = 0; i < 40; i++) {
        int len = snprintf(text, sizeof text,
                           "{\"session_id\":\"%s\",\"n\":%" PRIu64 ",\"pad\":\"%0*d\"}\n"
                           "{\"session_id\":\"%s\"}\n",
                           ids[t_below(chance, 3)], t_below(chance, 99), (int)t_below(chance, 300),
                           1, ids[t_below(chance, 3)]);
        if (t_try_append(t, 0, text, (size_t)len) < 0)
            _exit(2);
    }
}

/* Batches of one size, each of them partly of a session that it makes. */
static bool write_even(struct t_store *t)
{
    char *text = malloc((size_t)T_EVEN_BATCH * 64);
    for (unsigned i = 0; text && i < T_EVEN_BATCHES; i++) {
        size_t len = 0;
        for (unsigned k = 0; k < T_EVEN_BATCH / 2; k++)
            len += (size_t)sprintf(
                text + len, "{\"session_id\":\"even\"}\n{\"session_id\":\"new %u\"}\n", i / 8);
        if (t_try_append(t, 0, text, len) < 0)
            break;
        if (i % 16 == 15 && hl_rotate(t->store, NULL) < 0)
            break;
        if (i % 50 == 49 && hl_checkpoint(t->store, NULL, NULL) < 0)
            break;
    }
    free(text);
    return text != NULL;
}

#define TWO_LINES "{\"session_id\":\"ten\"}\n{\"session_id\":\"ten\",\"payload\":2}\n"
#define TEN_LINES TWO_LINES TWO_LINES TWO_LINES TWO_LINES TWO_LINES

static bool obey(struct t_store *t, char order, uint64_t *chance)
{
    struct hl_session about;
    switch (order) {
    case 'a':
        t_write_some(t, chance);
        return true;
    case 'b': { /* 50 MiB */
        static char big[1 << 20];
        memset(big, 'b', sizeof big);
        for (int i = 0; i < 50; i++) {
            if (hl_session_by_id(t->store, "a", 1, &about) < 0 ||
                t_try_append(t, about.number, big, sizeof big) < 0)
                return false;
        }
        return true;
    }
    case 'n': { /* one record, and an attribute that says which */
        char value[32];
        if (t_try_append(t, 0, "{\"session_id\":\"n\"}\n", 19) < 0 ||
            hl_session_by_id(t->store, "n", 1, &about) < 0)
            return false;
        int len = snprintf(value, sizeof value, "value %" PRIu64, about.records);
        return hl_attribute_set(t->store, about.number, "a", value, (size_t)len, 0) == 0;
    }
    case 't':
        return t_try_append(t, 0, TEN_LINES, strlen(TEN_LINES)) == 0;
    case 'e':
        return write_even(t);
    case 'm':
        return hl_session_by_id(t->store, "a", 1, &about) == 0 &&
               hl_session_change(t->store, about.number, HL_CHANGE_MODE, 0, 0,
                                 (uint32_t)t_below(chance, 01000), NULL) == 0;
    case 'x':
    case 'd': {
        const char id[] = {(char)('a' + t_below(chance, 3)), 0};
        if (hl_session_by_id(t->store, id, 1, &about) < 0)
            return true;
        if (order == 'd')
            return hl_delete(t->store, about.number, NULL, NULL) == 0;
        return hl_trim(t->store, about.number, t_below(chance, about.last_seq + 2), NULL, NULL) ==
               0;
    }
    case 'k': {
        const struct hl_compact what = {.everything = true};
        return hl_compact(t->store, &what, NULL, NULL, NULL) == 0;
    }
    case 'r':
        return hl_rotate(t->store, NULL) == 0;
    case 'c':
        return hl_checkpoint(t->store, NULL, NULL) == 0;
    case 'i':
        return hl_reindex(t->store, NULL, NULL) == 0;
    case 's': {
        char name[32];
        snprintf(name, sizeof name, "s%" PRIu64, t_below(chance, UINT64_MAX));
        return hl_snapshot(t->store, name, NULL, NULL) == 0;
    }
    case 'o':
        if (hl_store_close(t->store) < 0)
            return false;
        t->store = NULL;
        return t_try_open(t) == 0;
    case 'q':
        return hl_store_close(t->store) == 0;
    default:
        return false;
    }
}

static void writer_run(const struct t_store *like, int from, int to, uint64_t chance)
{
    struct t_store t = *like;
    char order;
    t.options.read_only = false;
    t.options.report = NULL;
    t.store = NULL;
    char done = t_try_open(&t) == 0 ? 'y' : 'n';
    while (write(to, &done, 1) == 1 && read(from, &order, 1) == 1) {
        done = obey(&t, order, &chance) ? 'y' : 'n';
        if (order == 'q') {
            done = write(to, &done, 1) == 1 ? 'y' : 'n';
            _exit(0);
        }
    }
    _exit(1);
}

void t_writer_wait(struct t_writer *writer)
{
    char answer = 0;
    assert_int_equal(read(writer->from, &answer, 1), 1);
    assert_int_equal(answer, 'y');
}

void t_writer_order(struct t_writer *writer, char order)
{
    assert_int_equal(write(writer->to, &order, 1), 1);
}

void t_tell(struct t_writer *writer, char order)
{
    t_writer_order(writer, order);
    t_writer_wait(writer);
}

void t_writer_start(struct t_writer *writer, struct t_store *t, uint64_t chance)
{
    int down[2], up[2];
    assert_int_equal(pipe(down), 0);
    assert_int_equal(pipe(up), 0);
    writer->pid = fork();
    assert_true(writer->pid >= 0);
    if (writer->pid == 0) {
        close(down[1]);
        close(up[0]);
        writer_run(t, down[0], up[1], chance);
    }
    close(down[0]);
    close(up[1]);
    writer->to = down[1];
    writer->from = up[0];
    t_writer_wait(writer);
}

void t_writer_end(struct t_writer *writer, bool kill_it)
{
    int status;
    if (kill_it)
        kill(writer->pid, SIGKILL);
    else
        t_tell(writer, 'q');
    assert_int_equal(waitpid(writer->pid, &status, 0), writer->pid);
    if (!kill_it)
        assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    close(writer->to);
    close(writer->from);
}
