/* The inside of the template engine: values, tokens, nodes and the rendering in progress.
 *
 *   source ─ lexer ─► tokens ─ parser ─► nodes ─ evaluator ─► bytes, each marked as markup or text ─► segments
 *
 * Everything lives in one arena that is freed when the rendering ends; nothing is collected, nothing can refer to itself. A failure leaves
 * through base/unwind.h to tt__template_render, which is sound because only the arena owns memory meanwhile. Values are a closed sum
 * type: nothing that a template writes reaches a file, the environment or a pointer (RELIABILITY J4).
 *
 * Marks. A string carries one byte of mark per byte: 0 from the template, 1 from a message or another variable. All operations carry the
 * marks along, so that a trimmed, joined or replaced text is still text (S1). */
#ifndef TT_TEXT_TEMPLATE_INT_H
#define TT_TEXT_TEMPLATE_INT_H
#include "base/mem.h"
#include "base/unwind.h"
#include "base/util.h"
#include "text/template.h"

/* ---- values ---- */
typedef enum kind { V_UNDEFINED, V_NONE, V_BOOL, V_INT, V_FLOAT, V_STRING, V_LIST, V_DICT, V_MACRO, V_GLOBAL } kind;
typedef struct str { const char *s; const uint8_t *mark; size_t n; } str;
typedef struct list list;
typedef struct dict dict;
typedef struct node node;
typedef struct scope scope;
typedef struct macro { const node *def; scope *home; } macro;
typedef struct val {
    kind kind;
    union { bool b; int64_t i; double f; const str *s; list *l; dict *d; const macro *m; const char *name; } u;   /* name: of undefined, global */
} val;
struct list { val *v; size_t n, cap; bool tuple; };
struct dict { const str **k; val *v; size_t n, cap; bool namespace; };

/* ---- tokens ---- */
typedef enum token_type { T_DATA, T_BLOCK_BEGIN, T_BLOCK_END, T_VAR_BEGIN, T_VAR_END, T_NAME, T_STRING, T_INT, T_FLOAT, T_OP, T_EOF } token_type;
typedef struct token { token_type type; int line; const str *s; int64_t i; double f; } token;   /* s: text of data, name, string, operator */

/* ---- nodes: a, b, c are operands; lists hang on `next` ---- */
typedef enum node_op {
    N_LITERAL, N_NAME, N_LIST, N_DICT, N_ATTR, N_ITEM, N_SLICE, N_CALL, N_FILTER, N_TEST, N_ARG, N_NEG, N_POS, N_NOT, N_AND, N_OR, N_COND, N_COMPARE,
    N_ADD, N_SUB, N_MUL, N_DIV, N_FLOORDIV, N_MOD, N_POW, N_CONCAT,
    S_DATA, S_PRINT, S_IF, S_FOR, S_SET, S_SET_BLOCK, S_MACRO, S_FILTER, S_BREAK, S_CONTINUE, S_DO
} node_op;
struct node {
    node_op op;
    int line, depth;
    const str *name;             /* of a name, attribute, filter, test, argument, macro; operator of a comparison */
    val v;                       /* literal, data */
    bool flag;                   /* N_LIST: tuple; N_TEST: negated */
    node *a, *b, *c, *args, *next;
};

/* ---- a rendering ---- */
struct scope { scope *up; const str **k; val *v; size_t n, cap; };
typedef struct out { char *s; uint8_t *mark; size_t n, cap; } out;
enum { LOOP_KEYS = 9 };          /* members of `loop` */
typedef struct cx {
    tt__unwind fail;
    tt_err *err;
    tt_status status;
    tt__arena arena;
    size_t arena_bytes;
    uint64_t steps;
    int line, depth, calls;
    token *tok;                  /* parser: current token */
    out *to;                     /* where output goes now */
    scope *scope, *root;
    const str *loop_keys[LOOP_KEYS];
    json_t *extra;
} cx;

enum { FLOW_NEXT, FLOW_BREAK, FLOW_CONTINUE };

_Noreturn void tt__tpl_fail(cx *c, tt_status st, const char *what, const char *got, const char *expected);
void *tt__tpl_alloc(cx *c, size_t bytes);                       /* zeroed; within the memory budget */
void tt__tpl_step(cx *c, uint64_t n);                           /* spends work */

token *tt__tpl_lex(cx *c, const char *source, size_t n);
node *tt__tpl_parse(cx *c, token *tokens);
int tt__tpl_run(cx *c, const node *body);
val tt__tpl_eval(cx *c, const node *n);

/* ---- values ---- */
static inline val tt__v_none(void) { return (val){.kind = V_NONE}; }
static inline val tt__v_bool(bool b) { return (val){.kind = V_BOOL, .u.b = b}; }
static inline val tt__v_int(int64_t i) { return (val){.kind = V_INT, .u.i = i}; }
static inline val tt__v_float(double f) { return (val){.kind = V_FLOAT, .u.f = f}; }
static inline val tt__v_str(const str *s) { return (val){.kind = V_STRING, .u.s = s}; }
static inline val tt__v_undefined(const char *name) { return (val){.kind = V_UNDEFINED, .u.name = name}; }
str *tt__str_new(cx *c, const char *s, size_t n, uint8_t mark);
const str *tt__str_of(cx *c, const char *text);                 /* markup */
const str *tt__str_sub(cx *c, const str *s, size_t from, size_t to);
bool tt__str_is(const str *s, const char *text);
size_t tt__str_find(cx *c, const str *in, const str *what, size_t from);   /* SIZE_MAX: not there */
bool tt__str_same(const str *a, const str *b);
list *tt__list_new(cx *c);
void tt__list_push(cx *c, list *l, val v);
val tt__v_list(list *l);
dict *tt__dict_new(cx *c);
void tt__dict_set(cx *c, dict *d, const str *k, val v);
const val *tt__dict_get(cx *c, const dict *d, const str *k);    /* NULL: missing */
val tt__from_json(cx *c, const json_t *j);

bool tt__truth(val v);
bool tt__equal(cx *c, val a, val b);
int tt__compare(cx *c, val a, val b);                           /* numbers, strings, lists; others fail */
bool tt__contains(cx *c, val item, val in);
const char *tt__kind_name(val v);
/* As Python's str(); nested values as repr(). */
const str *tt__to_str(cx *c, val v);
const str *tt__to_json(cx *c, val v, int indent);               /* indent < 0: one line */
list *tt__to_list(cx *c, val v);                                /* what `for` sees */
size_t tt__char_count(const str *s);
size_t tt__char_at(const str *s, size_t index);                 /* byte offset of a character */

/* ---- output ---- */
void tt__out_add(cx *c, out *o, const char *s, const uint8_t *mark, size_t n);   /* mark NULL: markup */
void tt__out_str(cx *c, out *o, const str *s);
const str *tt__out_take(cx *c, out *o);                         /* as a string; frees o */

/* ---- library ---- */
typedef struct args { val *v; size_t n; const str **names; val *named; size_t n_named; } args;
val tt__arg(cx *c, const args *a, size_t i, const char *name, val otherwise);    /* by place or name */
val tt__call_filter(cx *c, const str *name, val v, const args *a);
bool tt__call_test(cx *c, const str *name, val v, const args *a);
bool tt__has_method(val v, const str *name);
val tt__call_method(cx *c, val v, const str *name, const args *a);
bool tt__is_global(const str *name);
val tt__call_global(cx *c, const char *name, const args *a);
val tt__get_attr(cx *c, val v, const str *name);
#endif
