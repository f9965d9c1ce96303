/*
 * answers.c - what a handle that was written to has to say.
 */
#include "answers.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct answer {
    struct answer *next;
    size_t len;
    char text[];
};

size_t answers_cost(size_t len)
{
    return sizeof(struct answer) + 2 * sizeof(size_t) + len; /* what malloc() adds, too */
}

static void drop_first(struct answers *answers)
{
    struct answer *first = answers->first;

    answers->first = first->next;
    if (!answers->first)
        answers->last = NULL;
    answers->bytes -= first->len;
    answers->cost -= answers_cost(first->len);
    answers->given = 0;
    free(first);
}

int answers_add(struct answers *answers, const char *text, size_t len, size_t limit)
{
    struct answer *answer = malloc(sizeof *answer + len);
    if (!answer)
        return -ENOMEM;
    answer->next = NULL;
    answer->len = len;
    memcpy(answer->text, text, len);
    while (answers->first && answers->bytes + len > limit)
        drop_first(answers);
    if (answers->last)
        answers->last->next = answer;
    else
        answers->first = answer;
    answers->last = answer;
    answers->bytes += len;
    answers->cost += answers_cost(len);
    return 0;
}

bool answers_drop(struct answers *answers)
{
    if (!answers->first)
        return false;
    drop_first(answers);
    return true;
}

size_t answers_read(struct answers *answers, char *buffer, size_t size)
{
    struct answer *first = answers->first;
    if (!first)
        return 0;
    size_t left = first->len - answers->given;
    size_t len = size < left ? size : left;
    memcpy(buffer, first->text + answers->given, len);
    answers->given += len;
    if (answers->given == first->len)
        drop_first(answers);
    return len;
}

void answers_free(struct answers *answers)
{
    while (answers->first)
        drop_first(answers);
}
