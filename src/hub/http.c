/* Requests over libcurl, with the rules of hub.h. Redirects are followed by hand, because the headers of the first hop carry what matters
 * (the commit and the SHA-256 of a large file) and because the token must not travel with them.
 *
 * A transfer that stands still for TRIMTAB_HTTP_TIMEOUT seconds ends as one that may be tried again.
 */
#include "base/env.h"
#include "base/limits.h"
#include "hub/hub.h"
#include <arpa/inet.h>
#include <curl/curl.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdio.h>
#include <strings.h>
#include <sys/socket.h>
#include <time.h>

enum { MAX_HOPS = 8 };

struct tt__http {
    tt_ctx *ctx;
    CURL *curl;
    char origin[300];            /* "https://host:443" of the endpoint */
    char *token;                 /* NULL: none, or not to be sent */
    bool private_endpoint;       /* the endpoint's own address is private: its redirects may be, too */
    long stall;                  /* seconds */
};

/* One request on its way. */
typedef struct hop {
    tt__http *h;
    tt__reply *reply;
    tt__sink_fn sink;            /* NULL: the body goes nowhere */
    void *user;
    tt_status status;            /* of the sink */
    int index;                   /* 0: the endpoint itself */
    bool refused;                /* a private address after a public endpoint */
    char refused_address[64];
} hop;

/* ------------------------------------------------------------------ addresses ---- */

static bool private_v4(uint32_t a) {
    return a >> 24 == 127 || a >> 24 == 10 || a >> 24 == 0 || a >> 20 == 0xac1 || a >> 16 == 0xc0a8 || a >> 16 == 0xa9fe || a >> 22 == 0x191 || a >> 28 >= 0xe;
}

static bool private_v6(const uint8_t *a) {
    static const uint8_t zero[15] = {0}, mapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
    if (memcmp(a, mapped, 12) == 0) return private_v4((uint32_t)a[12] << 24 | (uint32_t)a[13] << 16 | (uint32_t)a[14] << 8 | a[15]);
    return (memcmp(a, zero, 15) == 0 && a[15] <= 1) || (a[0] & 0xfe) == 0xfc || (a[0] == 0xfe && (a[1] & 0xc0) == 0x80) || a[0] == 0xff;
}

static bool is_private(const struct sockaddr *s) {
    if (s->sa_family == AF_INET) return private_v4(ntohl(((const struct sockaddr_in *)(const void *)s)->sin_addr.s_addr));
    if (s->sa_family == AF_INET6) return private_v6(((const struct sockaddr_in6 *)(const void *)s)->sin6_addr.s6_addr);
    return true;
}

/* The address that is really connected to, after the name was resolved: nothing can change in between. */
static curl_socket_t open_socket(void *user, curlsocktype purpose, struct curl_sockaddr *a) {
    hop *p = user;
    bool priv = is_private(&a->addr);
    (void)purpose;
    if (p->index == 0) p->h->private_endpoint = priv;
    if (priv && !p->h->private_endpoint) {
        const void *raw = a->family == AF_INET ? (const void *)&((struct sockaddr_in *)(void *)&a->addr)->sin_addr : (const void *)&((struct sockaddr_in6 *)(void *)&a->addr)->sin6_addr;
        p->refused = true;
        if (a->family != AF_INET && a->family != AF_INET6) raw = NULL;
        if (!raw || !inet_ntop(a->family, raw, p->refused_address, sizeof p->refused_address)) snprintf(p->refused_address, sizeof p->refused_address, "unknown");
        return CURL_SOCKET_BAD;
    }
    return socket(a->family, a->socktype | SOCK_CLOEXEC, a->protocol);
}

/* ------------------------------------------------------------------ URLs ---- */

/* scheme://host:port in lower case; false for anything but http and https. */
static bool origin_of(const char *url, char out[300]) {
    CURLU *u = curl_url();
    char *scheme = NULL, *host = NULL, *port = NULL;
    bool ok = u && curl_url_set(u, CURLUPART_URL, url, 0) == CURLUE_OK && curl_url_get(u, CURLUPART_SCHEME, &scheme, 0) == CURLUE_OK &&
              curl_url_get(u, CURLUPART_HOST, &host, 0) == CURLUE_OK && curl_url_get(u, CURLUPART_PORT, &port, CURLU_DEFAULT_PORT) == CURLUE_OK &&
              (strcmp(scheme, "http") == 0 || strcmp(scheme, "https") == 0) && strlen(host) < 256;
    if (ok) snprintf(out, 300, "%s://%s:%s", scheme, host, port);
    for (char *c = out; ok && *c; c++)
        if (*c >= 'A' && *c <= 'Z') *c = (char)(*c + 32);
    curl_free(scheme);
    curl_free(host);
    curl_free(port);
    curl_url_cleanup(u);
    return ok;
}

/* `location` seen from `url`. Caller frees with curl_free. */
static char *join_url(const char *url, const char *location) {
    CURLU *u = curl_url();
    char *out = NULL;
    if (u && curl_url_set(u, CURLUPART_URL, url, 0) == CURLUE_OK && curl_url_set(u, CURLUPART_URL, location, 0) == CURLUE_OK)
        curl_url_get(u, CURLUPART_URL, &out, 0);
    curl_url_cleanup(u);
    return out;
}

char *tt__url_escape(const char *path) {
    static const char hex[] = "0123456789ABCDEF";
    tt__str out = {0};
    for (; *path; path++) {
        unsigned char c = (unsigned char)*path;
        bool plain = (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || strchr("-._~/", c);
        char escaped[3] = {'%', hex[c >> 4], hex[c & 15]};
        tt__str_add(&out, plain ? path : escaped, plain ? 1 : 3);
    }
    if (!out.failed && out.s) return out.s;
    tt__str_free(&out);
    return NULL;
}

/* ------------------------------------------------------------------ callbacks ---- */

/* The value of header `name` in a line, trimmed and without control bytes, into out. */
static bool header_value(const char *line, size_t n, const char *name, char *out, size_t size) {
    size_t k = strlen(name), o = 0;
    if (n <= k || line[k] != ':' || strncasecmp(line, name, k) != 0) return false;
    for (k++; k < n && (line[k] == ' ' || line[k] == '\t'); k++) {}
    while (n > k && (line[n - 1] == '\r' || line[n - 1] == '\n' || line[n - 1] == ' ')) n--;
    if (n - k >= size) return false;
    for (; k < n; k++)
        if ((unsigned char)line[k] >= 32 && line[k] != 127) out[o++] = line[k];
    out[o] = 0;
    return true;
}

/* W/"abc" and "abc" are abc. */
static void plain_etag(char *s) {
    char *p = strncmp(s, "W/", 2) == 0 ? s + 2 : s;
    size_t n = strlen(p);
    if (n >= 2 && p[0] == '"' && p[n - 1] == '"') p[n - 1] = 0, p++;
    memmove(s, p, strlen(p) + 1);
}

static size_t on_header(char *line, size_t size, size_t n, void *user) {
    hop *p = user;
    tt__reply *r = p->reply;
    char number[32];
    n *= size;
    if (n > 5 && strncmp(line, "HTTP/", 5) == 0) {           /* a new answer: "100 Continue" or a proxy's may come before the real one */
        long keep = r->status;
        *r = (tt__reply){.status = keep, .length = -1, .linked_size = -1};
    }
    if (header_value(line, n, "etag", r->etag, sizeof r->etag)) plain_etag(r->etag);
    if (header_value(line, n, "x-linked-etag", r->linked_etag, sizeof r->linked_etag)) plain_etag(r->linked_etag);
    header_value(line, n, "x-repo-commit", r->commit, sizeof r->commit);
    header_value(line, n, "location", r->location, sizeof r->location);
    header_value(line, n, "content-range", r->content_range, sizeof r->content_range);
    if (header_value(line, n, "content-length", number, sizeof number) && !tt__parse_i64(number, &r->length)) r->length = -1;
    if (header_value(line, n, "x-linked-size", number, sizeof number) && !tt__parse_i64(number, &r->linked_size)) r->linked_size = -1;
    return n;
}

static size_t on_body(char *data, size_t size, size_t n, void *user) {
    hop *p = user;
    n *= size;
    curl_easy_getinfo(p->h->curl, CURLINFO_RESPONSE_CODE, &p->reply->status);
    if (!p->sink || (p->reply->status != 200 && p->reply->status != 206)) return n;
    p->status = p->sink(p->user, p->reply, data, n);
    return p->status == TT_OK ? n : 0;
}

static int on_tick(void *user, curl_off_t a, curl_off_t b, curl_off_t c, curl_off_t d) {
    const hop *p = user;
    (void)a, (void)b, (void)c, (void)d;
    return atomic_load(&p->h->ctx->cancel) != 0;
}

/* ------------------------------------------------------------------ one hop ---- */

typedef struct request { bool head; uint64_t from; const char *if_range; } request;

static struct curl_slist *request_headers(const tt__http *h, const request *q, bool with_token) {
    struct curl_slist *list = NULL;
    char line[1200];
    if (with_token && h->token) {
        snprintf(line, sizeof line, "Authorization: Bearer %s", h->token);
        list = curl_slist_append(list, line);
    }
    if (q->from && q->if_range) {
        snprintf(line, sizeof line, "If-Range: \"%s\"", q->if_range);
        list = curl_slist_append(list, line);
    }
    return curl_slist_append(list, "Accept-Encoding: identity");
}

static CURLcode perform(tt__http *h, const char *url, const request *q, hop *p, bool with_token, char *text) {
    CURL *c = h->curl;
    char range[40];
    const char *ca = tt__env(TT_ENV_SSL_CERT_FILE);
    curl_easy_reset(c);
    curl_easy_setopt(c, CURLOPT_URL, url);
    curl_easy_setopt(c, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(c, CURLOPT_USERAGENT, "trimtab/0.1");
    curl_easy_setopt(c, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(c, CURLOPT_CONNECTTIMEOUT, 20L);
    curl_easy_setopt(c, CURLOPT_LOW_SPEED_LIMIT, 1L);
    curl_easy_setopt(c, CURLOPT_LOW_SPEED_TIME, h->stall);
    curl_easy_setopt(c, CURLOPT_NOBODY, q->head ? 1L : 0L);
    curl_easy_setopt(c, CURLOPT_ERRORBUFFER, text);
    curl_easy_setopt(c, CURLOPT_HEADERFUNCTION, on_header);
    curl_easy_setopt(c, CURLOPT_HEADERDATA, p);
    curl_easy_setopt(c, CURLOPT_WRITEFUNCTION, on_body);
    curl_easy_setopt(c, CURLOPT_WRITEDATA, p);
    curl_easy_setopt(c, CURLOPT_NOPROGRESS, 0L);
    curl_easy_setopt(c, CURLOPT_XFERINFOFUNCTION, on_tick);
    curl_easy_setopt(c, CURLOPT_XFERINFODATA, p);
    curl_easy_setopt(c, CURLOPT_OPENSOCKETFUNCTION, open_socket);
    curl_easy_setopt(c, CURLOPT_OPENSOCKETDATA, p);
    if (ca) curl_easy_setopt(c, CURLOPT_CAINFO, ca);
    snprintf(range, sizeof range, "%" PRIu64 "-", q->from);
    if (q->from) curl_easy_setopt(c, CURLOPT_RANGE, range);
    struct curl_slist *headers = request_headers(h, q, with_token);
    curl_easy_setopt(c, CURLOPT_HTTPHEADER, headers);
    CURLcode code = curl_easy_perform(c);
    curl_easy_getinfo(c, CURLINFO_RESPONSE_CODE, &p->reply->status);
    curl_easy_setopt(c, CURLOPT_HTTPHEADER, NULL);
    curl_slist_free_all(headers);
    return code;
}

static tt_status transport_error(const hop *p, CURLcode code, const char *url, const char *text, bool *again, tt_err *err) {
    const char *why = text[0] ? text : curl_easy_strerror(code);
    *again = false;
    if (p->status != TT_OK) return p->status;
    if (code == CURLE_ABORTED_BY_CALLBACK) return tt__check_cancel(p->h->ctx, err);
    if (p->refused) return tt__fail(err, TT_FAIL, "redirect to a private address refused|%s|%s", url, p->refused_address);
    if (code == CURLE_COULDNT_RESOLVE_HOST || code == CURLE_COULDNT_CONNECT || code == CURLE_COULDNT_RESOLVE_PROXY)
        return tt__fail(err, TT_OFFLINE, "cannot reach the hub|%s|%s||is this machine online?", url, why);
    *again = code == CURLE_PARTIAL_FILE || code == CURLE_RECV_ERROR || code == CURLE_SEND_ERROR || code == CURLE_OPERATION_TIMEDOUT || code == CURLE_GOT_NOTHING ||
             code == CURLE_HTTP2_STREAM || code == CURLE_HTTP2;
    return tt__fail(err, TT_FAIL, "transfer failed|%s|%s||repeat the command to go on", url, why);
}

static tt_status http_error(const tt__http *h, long status, const char *url, bool *again, tt_err *err) {
    *again = status >= 500 || status == 429;
    if (status == 401 || status == 403)
        return tt__fail(err, TT_FAIL, "access refused|%s|HTTP %ld||%s", url, status, h->token ? "does the token cover this repository?" : "set HF_TOKEN for private and gated repositories");
    if (status == 404) return tt__fail(err, TT_FAIL, "not found on the hub|%s|HTTP 404||is the name or the revision misspelt?", url);
    return tt__fail(err, TT_FAIL, "unexpected answer of the hub|%s|HTTP %ld%s", url, status, *again ? "||repeat the command later" : "");
}

static bool is_redirect(long s) { return s == 301 || s == 302 || s == 303 || s == 307 || s == 308; }

/* Follows redirects; with q->head only inside the origin. Ends with a 2xx answer, or with a redirect that a HEAD does not follow. */
static tt_status send_request(tt__http *h, const char *first, const request *q, tt__sink_fn sink, void *user, tt__reply *reply, bool *again, tt_err *err) {
    char *url = NULL, text[CURL_ERROR_SIZE], origin[300];
    tt_status st = TT_OK;
    *again = false;
    for (int i = 0; i <= MAX_HOPS; i++) {
        const char *here = url ? url : first;
        hop p = {.h = h, .reply = reply, .sink = sink, .user = user, .index = i};
        text[0] = 0;
        *reply = (tt__reply){.length = -1, .linked_size = -1};
        bool home = origin_of(here, origin) && strcmp(origin, h->origin) == 0;
        CURLcode code = perform(h, here, q, &p, home, text);
        if (code != CURLE_OK) st = transport_error(&p, code, here, text, again, err);
        else if (reply->status / 100 == 2) break;
        else if (!is_redirect(reply->status) || !reply->location[0]) st = http_error(h, reply->status, here, again, err);
        if (st != TT_OK) break;
        char *next = join_url(here, reply->location), there[300];
        if (!next || !origin_of(next, there)) st = tt__fail(err, TT_FAIL, "bad redirect|%s|%s", here, reply->location);
        else if (strncmp(origin, "https:", 6) == 0 && strncmp(there, "https:", 6) != 0) st = tt__fail(err, TT_FAIL, "redirect from https to http refused|%s|%s", here, there);
        else if (i == MAX_HOPS) st = tt__fail(err, TT_FAIL, "too many redirects|%s||at most %d", first, MAX_HOPS);
        bool leave = st == TT_OK && q->head && strcmp(there, h->origin) != 0;
        if (st != TT_OK || leave) {
            curl_free(next);
            break;
        }
        curl_free(url);
        url = next;
    }
    curl_free(url);
    return st;
}

/* ------------------------------------------------------------------ what others call ---- */

static void init_curl(void) { curl_global_init(CURL_GLOBAL_DEFAULT); }

/* A token goes over https, or to this machine itself. */
static bool token_may_travel(const char *origin) {
    return strncmp(origin, "https:", 6) == 0 || strncmp(origin, "http://127.0.0.1:", 17) == 0 || strncmp(origin, "http://localhost:", 17) == 0 || strncmp(origin, "http://[::1]:", 13) == 0;
}

/* It becomes a header: printable, no blanks. */
static bool token_ok(const char *t) {
    for (; *t; t++)
        if (*t <= 32 || *t >= 127) return false;
    return true;
}

static tt_status set_token(tt__http *h, const char *token, tt_err *err) {
    if (!token || !*token) return TT_OK;
    TT_FAIL_IF(!token_ok(token) || strlen(token) > 1000, err, TT_USAGE, "bad access token|HF_TOKEN||printable characters");
    if (!token_may_travel(h->origin)) {
        tt__log(h->ctx, TT_LOG_WARN, "the access token is not sent over plain http to %s", h->origin);
        return TT_OK;
    }
    h->token = tt__strdup(token);
    return h->token ? TT_OK : tt__fail(err, TT_RESOURCE, "out of memory|access token");
}

tt_status tt__http_open(tt_ctx *ctx, const char *endpoint, const char *token, tt__http **out, tt_err *err) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    const char *stall = tt__env(TT_ENV_HTTP_TIMEOUT);
    double seconds = 60;
    pthread_once(&once, init_curl);
    TT_TRY(tt__new(out, 1, sizeof **out, "a connection", err));
    tt__http *h = *out;
    h->ctx = ctx;
    if (stall && !tt__parse_duration(stall, &seconds)) seconds = 60;
    h->stall = seconds < 1 ? 1 : (long)seconds;
    h->curl = curl_easy_init();
    tt_status st = h->curl ? TT_OK : tt__fail(err, TT_RESOURCE, "out of memory|a connection");
    if (st == TT_OK && !origin_of(endpoint, h->origin)) st = tt__fail(err, TT_USAGE, "bad address of the hub|HF_ENDPOINT|%s|http or https", endpoint);
    if (st == TT_OK) st = set_token(h, token, err);
    if (st == TT_OK) return TT_OK;
    tt__http_close(h);
    *out = NULL;
    return st;
}

void tt__http_close(tt__http *h) {
    if (!h) return;
    if (h->curl) curl_easy_cleanup(h->curl);
    tt__free(h->token);
    tt__free(h);
}

tt_status tt__http_head(tt__http *h, const char *url, tt__reply *reply, tt_err *err) {
    bool again;
    tt_status st = TT_OK;
    request q = {.head = true};
    for (int k = 0; k < 4; k++) {
        st = send_request(h, url, &q, NULL, NULL, reply, &again, err);
        if (st == TT_OK || !again) break;
        TT_TRY(tt__http_wait(h->ctx, k, err));
    }
    return st;
}

tt_status tt__http_wait(tt_ctx *ctx, int k, tt_err *err) {
    struct timespec t = {0, 50 * 1000 * 1000};
    for (double end = tt__now() + 0.25 * (double)(1 << (k > 5 ? 5 : k)); tt__now() < end;) {
        TT_TRY(tt__check_cancel(ctx, err));
        nanosleep(&t, NULL);
    }
    return TT_OK;
}

static tt_status collect(void *user, const tt__reply *reply, const void *data, size_t n) {
    tt__str *s = user;
    (void)reply;
    if (s->n + n > TT_LIMIT_HUB_JSON) return TT_BADFILE;
    tt__str_add(s, data, n);
    return s->failed ? TT_RESOURCE : TT_OK;
}

tt_status tt__http_json(tt__http *h, const char *url, json_t **out, tt_err *err) {
    tt__reply reply;
    tt_status st = TT_OK;
    request q = {0};
    bool again;
    for (int k = 0; k < 4; k++) {
        tt__str body = {0};
        st = send_request(h, url, &q, collect, &body, &reply, &again, err);
        if (st == TT_BADFILE) st = tt__fail(err, TT_BADFILE, "answer of the hub too long|%s||limit HUB_JSON, %" PRIu64 " bytes", url, TT_LIMIT_HUB_JSON);
        if (st == TT_RESOURCE) st = tt__fail(err, TT_RESOURCE, "out of memory|%s", url);
        if (st == TT_OK) st = tt__json_parse(body.s ? body.s : "", body.n, url, out, err);
        tt__str_free(&body);
        if (st == TT_OK || !again) break;
        TT_TRY(tt__http_wait(h->ctx, k, err));
    }
    return st;
}

tt_status tt__http_get(tt__http *h, const char *url, uint64_t from, const char *if_range, tt__sink_fn sink, void *user, tt__reply *reply, bool *again, tt_err *err) {
    request q = {.from = from, .if_range = if_range};
    return send_request(h, url, &q, sink, user, reply, again, err);
}
