/* Classify a recording with a model in C: for each window its start, task, label and score.
 *
 * Data: a model of `audiostride export RUN -o model.h` and a WAV file of 16 bits and one channel at its sample rate.
 * Command: cc -O3 -I. run_c.c -o run_c -lm && ./run_c recording.wav
 * Expected: the labels that `audiostride predict` gives.
 */
#include "model.h"

#include <stdio.h>

static float samples[AUDIOSTRIDE_WINDOW], work[AUDIOSTRIDE_WORK], logits[AUDIOSTRIDE_LOGITS], scores[AUDIOSTRIDE_LOGITS];

static long number(const unsigned char *bytes, int count)
{
    long value = 0;
    while (count-- > 0)
        value = value << 8 | bytes[count];
    return value;
}

int main(int count, char **given)
{
    unsigned char head[24] = {0}, sample[2];
    FILE *file = count == 2 ? fopen(given[1], "rb") : NULL;
    if (!file || fread(head, 1, 12, file) != 12 || memcmp(head + 8, "WAVE", 4))
        return fprintf(stderr, "give one WAV file, got %s\n", count == 2 ? given[1] : "another number of them"), 2;
    while (fread(head, 1, 8, file) == 8 && memcmp(head, "data", 4)) { /* all chunks in front of the samples */
        const long length = number(head + 4, 4);
        const int format = !memcmp(head, "fmt ", 4) && length >= 16;
        if (format && (fread(head, 1, 16, file) != 16 || number(head + 2, 2) != 1 || number(head + 14, 2) != 16 ||
                       number(head + 4, 4) != AUDIOSTRIDE_SAMPLE_RATE))
            return fprintf(stderr, "%s must have one channel of 16 bits at %d Hz\n", given[1], AUDIOSTRIDE_SAMPLE_RATE), 2;
        fseek(file, length - (format ? 16 : 0) + length % 2, SEEK_CUR);
    }
    for (int window = 0, n = AUDIOSTRIDE_WINDOW; n == AUDIOSTRIDE_WINDOW; window++) {
        memset(samples, 0, sizeof samples);
        for (n = 0; n < AUDIOSTRIDE_WINDOW && fread(sample, 1, 2, file) == 2; n++)
            samples[n] = (float)((number(sample, 2) ^ 0x8000) - 0x8000) / 32768;
        if (n == 0 && window > 0)
            break;
        audiostride_classify(samples, logits, work);
        audiostride_scores(logits, scores);
        for (int t = 0; t < AUDIOSTRIDE_TASKS; t++) {
            const audiostride_task *task = audiostride_tasks + t;
            int best = task->first;
            for (int k = best; k < task->first + task->classes; k++)
                best = scores[k] > scores[best] ? k : best;
            for (int k = task->first; k < task->first + task->classes; k++)
                if (task->several ? scores[k] >= 0.5f : k == best)
                    printf("%.2f s\t%s\t%s\t%.4f\n", (double)window * AUDIOSTRIDE_WINDOW / AUDIOSTRIDE_SAMPLE_RATE,
                           task->name, audiostride_labels[k], scores[k]);
        }
    }
    return 0;
}
