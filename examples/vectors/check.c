/* Checks the kernel of batchnorm.h with the float32 test vectors that `bn-spec vectors export DIR` wrote:

       cc -O2 -o check check.c -lm && ./check DIR

   docs/vectors.md describes the files. Exit codes: 0 all as expected, 1 something is not, 2 the vectors cannot be read. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "batchnorm.h"

enum { X, DY, WEIGHT, BIAS, MEAN, VAR, OUTPUT, DX, DWEIGHT, DBIAS, SLOTS };
static const char *NAMES[] = {"x", "dy", "weight", "bias", "running_mean", "running_var",
                              "output", "grad_input", "grad_weight", "grad_bias"};
static float *slot[SLOTS]; /* the tensors of a call, contiguous; NULL where there is none */
static long shape[4], strides[4];

static void fail(const char *what) { fprintf(stderr, "cannot read %s\n", what), exit(2); }

static FILE *opened(const char *folder, const char *name)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *file = fopen(path, "rb");
    if (!file) fail(path);
    return file;
}

static char *contents(FILE *file) /* of the whole file, from its first byte */
{
    fseek(file, 0, SEEK_END);
    long size = ftell(file);
    char *bytes = malloc(size);
    rewind(file);
    if (!bytes || fread(bytes, 1, size, file) != (size_t)size) fail("the arrays");
    return bytes;
}

static int named(const char *name)
{
    for (int i = 0; i < SLOTS; i++)
        if (!strcmp(name, NAMES[i])) return i;
    fail(name);
    return -1;
}

static float *made(int i, long size) { return slot[i] = realloc(slot[i], (size + 1) * sizeof(float)); }

static void gather(int i, const float *memory, int ndim) /* a strided tensor of 1 or 4 dimensions */
{
    for (int d = ndim; d < 4; d++) shape[d] = 1, strides[d] = 0;
    float *to = made(i, shape[0] * shape[1] * shape[2] * shape[3]);
    for (long a = 0; a < shape[0]; a++)
        for (long b = 0; b < shape[1]; b++)
            for (long c = 0; c < shape[2]; c++)
                for (long d = 0; d < shape[3]; d++)
                    *to++ = memory[a * strides[0] + b * strides[1] + c * strides[2] + d * strides[3]];
}

int main(int argc, char **argv)
{
    if (argc != 2) return fprintf(stderr, "usage: check DIR\n"), 2;
    FILE *text = opened(argv[1], "manifest.txt");
    char *bytes = contents(opened(argv[1], "arrays.safetensors")), word[64], name[64], dtype[32], kind[16] = "", weight[32];
    int version, training = 1, ndim, channels = 0, mine = 0;
    long place, size, value, bound, judged, before, after, n = 0, pixels = 0, elements = 0, wrong = 0;
    double eps = 0, momentum = 0;
    if (fscanf(text, "bn-spec-vectors %d", &version) != 1 || version != 1) fail("this version of the vectors");
    while (fscanf(text, "%63s", word) == 1) {
        if (!strcmp(word, "vector")) {
            if (fscanf(text, "%63s %31s %d", name, dtype, &channels) != 3) fail(word);
            mine = !strcmp(dtype, "float32");
        } else if (!strcmp(word, "call")) {
            if (fscanf(text, "%15s %d %lf %31s %ld %ld", kind, &training, &eps, weight, &before, &after) != 6) fail(word);
            momentum = strcmp(weight, "none") ? atof(weight) : 1.0 / (after > 0 ? after : 1);
            for (int i = 0; i < SLOTS; i++) free(slot[i]), slot[i] = NULL;
        } else if (!strcmp(word, "tensor")) {
            char which[32];
            if (fscanf(text, "%31s %*s %ld %d", which, &place, &ndim) != 3) fail(word);
            for (int d = 0; d < ndim; d++) if (fscanf(text, "%ld", &shape[d]) != 1) fail(which);
            for (int d = 0; d < ndim; d++) if (fscanf(text, "%ld", &strides[d]) != 1) fail(which);
            if (mine) gather(named(which), (const float *)(bytes + place), ndim);
            if (named(which) == X) n = shape[0], pixels = shape[2] * shape[3];
        } else if (!strcmp(word, "run") && mine && !strcmp(kind, "forward")) {
            forward(slot[X], n, channels, pixels, slot[WEIGHT], slot[BIAS], slot[MEAN], slot[VAR], training, momentum,
                    eps, made(OUTPUT, n * channels * pixels));
        } else if (!strcmp(word, "run") && mine) {
            backward(slot[DY], slot[X], n, channels, pixels, slot[WEIGHT], slot[MEAN], slot[VAR], training, eps,
                     made(DX, n * channels * pixels), made(DWEIGHT, channels), made(DBIAS, channels));
        } else if (!strcmp(word, "expect")) {
            char which[32];
            if (fscanf(text, "%31s %ld %ld %ld %ld", which, &size, &value, &bound, &judged) != 5) fail(word);
            for (long i = 0; i < size && mine; i++) {
                if (!bytes[judged + i]) continue;
                double expected = ((double *)(bytes + value))[i], most = ((double *)(bytes + bound))[i];
                double got = slot[named(which)][i];
                elements++;
                if (fabs(got - expected) <= most) continue; /* NaN is not */
                if (wrong++ < 10) printf("%s %s[%ld]: expected %.9g +- %.2g, got %.9g\n", name, which, i, expected, most, got);
            }
        }
    }
    printf("%ld of %ld elements are wrong\n", wrong, elements);
    return wrong > 0 || !elements;
}
