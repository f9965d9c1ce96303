/* error.c - one way to say what went wrong; the contract is in store.h. */
#include <stdarg.h>
#include <stdio.h>

#include "store.h"

int hl_fail(struct hl_error *err, int code, const char *format, ...)
{
    if (err) {
        va_list arguments;
        va_start(arguments, format);
        err->code = code;
        err->line = 0;
        err->session = 0;
        vsnprintf(err->text, sizeof err->text, format, arguments);
        va_end(arguments);
    }
    return -code;
}
