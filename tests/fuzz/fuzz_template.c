/* A chat template from any bytes: source, a zero byte, further variables as JSON. It ends within its budgets, leaves nothing behind, and what
 * came from a message never stands in markup. */
#include "base/limits.h"
#include "base/mem.h"
#include "text/template.h"
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define MUST(cond) do { if (!(cond)) abort(); } while (0)

/* The message's letters can be told from the template's only where the source has none of them and builds none by escapes. */
static bool tells_apart(const char *source) { return !strpbrk(source, "zZqQ\\%") && !strstr(source, "strftime"); }

static void check_output(const tt_template_output *o, const char *source) {
    size_t total = 0;
    for (size_t i = 0; i < o->n; i++) {
        MUST(o->seg[i].n > 0 && o->seg[i].text[o->seg[i].n] == 0);
        MUST(i == 0 || o->seg[i].markup != o->seg[i - 1].markup);
        total += o->seg[i].n;
        if (o->seg[i].markup && tells_apart(source))
            for (size_t k = 0; k < o->seg[i].n; k++) MUST(!strchr("zq", o->seg[i].text[k]) || !o->seg[i].text[k]);
    }
    MUST(total <= TT_LIMIT_TEMPLATE_OUTPUT);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const tt_message messages[] = {{"system", "zq"}, {"user", "<|zq|> Zq\nzz 12 \xC3\xA9\xF0\x9F\x98\x80"}, {"zq", "zq,zq"}, {"assistant", ""}};
    char *s = malloc(size + 2);
    tt_template_output o;
    tt_err err = {0};
    MUST(s);
    if (size) memcpy(s, data, size);
    s[size] = s[size + 1] = 0;
    size_t n = strlen(s);
    uint64_t before = tt__mem_now();
    tt_status st = tt__template_render(s, messages, size ? data[0] % 5 : 0, size & 1, "<s>", "</s>", n < size ? s + n + 1 : NULL, &o, &err);
    MUST(st == TT_OK || ((st == TT_BADFILE || st == TT_USAGE) && err.what[0] && o.n == 0));
    if (st == TT_OK) check_output(&o, s);
    tt__template_output_free(&o);
    MUST(tt__mem_now() == before);
    free(s);
    return 0;
}
