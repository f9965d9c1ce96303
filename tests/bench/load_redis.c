/*
 * load_redis.c - the same records in a Redis stream, over its socket.
 *
 *     append   socket= count= [depth=1] [threads=1]   XADD, `depth` of them sent before the first
 * answer
 */
#include "load.h"

#include <hiredis/hiredis.h>
#include <stdlib.h>
#include <string.h>

struct job {
    const char *socket;
    uint64_t count, depth;
};

static void take_answer(redisContext *redis)
{
    void *answer = NULL;
    if (redisGetReply(redis, &answer) != REDIS_OK)
        die("redis: %s", redis->errstr);
    if (((redisReply *)answer)->type == REDIS_REPLY_ERROR)
        die("redis: %s", ((redisReply *)answer)->str);
    freeReplyObject(answer);
}

static void append_entries(void *context, unsigned thread)
{
    const struct job *job = context;
    char line[LINE_BYTES], stream[16] = "stream-a";
    stream[7] = (char)('a' + thread % 26);
    make_line(line, thread);
    const char *words[] = {"XADD", stream, "*", "line", line};
    size_t lengths[] = {4, 8, 1, 4, LINE_BYTES - 1};
    redisContext *redis = redisConnectUnix(job->socket);
    if (redis == NULL || redis->err != 0)
        die("redis: %s: %s", job->socket, redis != NULL ? redis->errstr : "out of memory");
    for (uint64_t done = 0; done < job->count;) {
        uint64_t sent = 0;
        for (; sent < job->depth && done < job->count; sent++, done++) {
            if (redisAppendCommandArgv(redis, 5, words, lengths) != REDIS_OK)
                die("redis: %s", redis->errstr);
        }
        for (; sent > 0; sent--)
            take_answer(redis);
    }
    redisFree(redis);
}

int main(int argc, char *argv[])
{
    if (argc < 2 || strcmp(argv[1], "append") != 0)
        die("usage: load_redis append name=value…");
    struct job job = {
        .socket = argument(argc, argv, "socket", NULL),
        .count = argument_number(argc, argv, "count", 0),
        .depth = argument_number(argc, argv, "depth", 1),
    };
    unsigned threads = (unsigned)argument_number(argc, argv, "threads", 1);
    uint64_t took = run_threads(threads, append_entries, &job);
    tell_rate(job.count * threads, job.count * threads * LINE_BYTES, took);
    return 0;
}
