/* The kernel under test: BatchNorm2d over contiguous (N, C, P) float arrays, P = H * W. Put your own in its place.
   weight and bias, or running_mean and running_var, are NULL where the layer has none. */
#include <math.h>

static void statistics(const float *x, int n, int c, int p, int k, float *mean, float *var)
{
    float sum = 0, squares = 0;
    for (int i = 0; i < n; i++)
        for (int j = 0; j < p; j++) sum += x[(i * c + k) * p + j];
    *mean = sum / (n * p);
    for (int i = 0; i < n; i++)
        for (int j = 0; j < p; j++) {
            float d = x[(i * c + k) * p + j] - *mean;
            squares += d * d;
        }
    *var = squares / (n * p);
}

/* Writes y, and moves the running statistics in training; momentum is the weight of the new value. */
static void forward(const float *x, int n, int c, int p, const float *weight, const float *bias, float *running_mean,
                    float *running_var, int training, double momentum, double eps, float *y)
{
    for (int k = 0; k < c; k++) {
        float mean, var, m = momentum, size = n * p;
        if (training || !running_mean) statistics(x, n, c, p, k, &mean, &var);
        else mean = running_mean[k], var = running_var[k];
        if (training && running_mean) {
#ifdef FAULT
            float estimate = var; /* the biased variance */
#else
            float estimate = var * (size / (size - 1));
#endif
            running_mean[k] = (1 - m) * running_mean[k] + m * mean;
            running_var[k] = (1 - m) * running_var[k] + m * estimate;
        }
        float s = 1 / sqrtf(var + (float)eps);
        for (int i = 0; i < n; i++)
            for (int j = 0; j < p; j++) {
                float normalised = (x[(i * c + k) * p + j] - mean) * s;
                y[(i * c + k) * p + j] = weight ? normalised * weight[k] + bias[k] : normalised;
            }
    }
}

/* Writes the gradients of the sum of dy * y; dweight and dbias are NULL where there is no weight. */
static void backward(const float *dy, const float *x, int n, int c, int p, const float *weight,
                     const float *running_mean, const float *running_var, int training, double eps, float *dx,
                     float *dweight, float *dbias)
{
    for (int k = 0; k < c; k++) {
        float mean, var, sum = 0, products = 0, size = n * p;
        int batch = training || !running_mean;
        if (batch) statistics(x, n, c, p, k, &mean, &var);
        else mean = running_mean[k], var = running_var[k];
        float s = 1 / sqrtf(var + (float)eps);
        for (int i = 0; i < n; i++)
            for (int j = 0; j < p; j++) {
                int at = (i * c + k) * p + j;
                sum += dy[at];
                products += dy[at] * ((x[at] - mean) * s);
            }
        for (int i = 0; i < n; i++)
            for (int j = 0; j < p; j++) {
                int at = (i * c + k) * p + j;
                float inner = batch ? dy[at] - sum / size - (x[at] - mean) * s * (products / size) : dy[at];
                dx[at] = inner * (weight ? weight[k] * s : s);
            }
        if (weight) dweight[k] = products, dbias[k] = sum;
    }
}
