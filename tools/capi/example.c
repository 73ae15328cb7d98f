/* Text in, label out: cc example.c -llimbeck_capi && ./a.out model.limbeck < texts
 *
 * One model, two threads: each text is classified on both, and where they agree
 * label and logits are written.
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "limbeck.h"

struct question {
    const LimbeckModel *model;
    const char *text;
    ptrdiff_t label;
    float *logits;
};

static void *ask(void *argument) {
    struct question *question = argument;
    question->label =
        limbeck_predict(question->model, question->text, strlen(question->text), question->logits, NULL);
    if (question->label < 0) {
        fprintf(stderr, "%s\n", limbeck_last_error());
    }
    return NULL;
}

int main(int argc, char **argv) {
    if (argc != 2) {
        fprintf(stderr, "usage: %s model.limbeck < texts\n", argv[0]);
        return 2;
    }
    LimbeckModel *model = limbeck_load(argv[1]);
    if (model == NULL) {
        fprintf(stderr, "%s\n", limbeck_last_error());
        return 1;
    }
    size_t labels = limbeck_labels(model);
    float *logits = calloc(2 * labels, sizeof *logits);
    if (logits == NULL) {
        return 1;
    }
    int status = 0;
    static char line[1 << 16];
    while (status == 0 && fgets(line, sizeof line, stdin) != NULL) {
        line[strcspn(line, "\n")] = 0;
        struct question here = {model, line, -1, logits}, there = {model, line, -1, logits + labels};
        pthread_t thread;
        if (pthread_create(&thread, NULL, ask, &there) != 0) {
            status = 1;
            break;
        }
        ask(&here);
        pthread_join(thread, NULL);
        if (here.label < 0 || here.label != there.label
            || memcmp(here.logits, there.logits, labels * sizeof *logits) != 0) {
            status = 1;
        } else {
            printf("%s", limbeck_label(model, (size_t)here.label));
            for (size_t label = 0; label < labels; label++) {
                printf(" %.5g", here.logits[label]);
            }
            puts("");
        }
    }
    free(logits);
    limbeck_free(model);
    return status;
}
