/* An updater or client of Windows that does what is written into it: words between semicolons. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <windows.h>

volatile char script[256] = "HOLDFAST-SCRIPT:";

static HANDLE pipe_of(const char *name) {
    const char *number = getenv(name);
    return number ? (HANDLE)(size_t)strtoull(number, NULL, 10) : NULL;
}

static void say(const char *text) {
    DWORD written;
    WriteFile(pipe_of("HOLDFAST_READY_FD"), text, strlen(text), &written, NULL);
}

int main(int argc, char **argv) {
    char words[256];
    for (int i = 0; i < 256; i++) words[i] = script[i];
    words[255] = 0;
    for (char *word = strtok(words + 16, ";"); word; word = strtok(NULL, ";")) {
        if (!strcmp(word, "ready")) say("R");
        else if (!strcmp(word, "go")) say("G");
        else if (!strcmp(word, "wait")) {
            char byte;
            DWORD count;
            while (ReadFile(pipe_of("HOLDFAST_CLIENT_FD"), &byte, 1, &count, NULL) && count) {}
        } else if (!strncmp(word, "exit ", 5)) ExitProcess((UINT)strtoul(word + 5, NULL, 0));
        else if (!strcmp(word, "crash")) *(volatile int *)NULL = 1;
        else if (!strncmp(word, "sleep ", 6)) Sleep(strtoul(word + 6, NULL, 10));
        else if (!strncmp(word, "say ", 4)) { printf("%s\n", word + 4); fflush(stdout); }
        else if (!strcmp(word, "args")) {
            for (int i = 1; i < argc; i++) printf("%s%s", i > 1 ? "|" : "", argv[i]);
            printf("\n");
            fflush(stdout);
        } else if (!strcmp(word, "where")) {
            char here[1024];
            GetCurrentDirectoryA(sizeof here, here);
            printf("%s\n", here);
            fflush(stdout);
        } else if (!strcmp(word, "vars")) {
            printf("%s %s %s\n", getenv("HOLDFAST_READY_FD") ? "ready" : "-", getenv("HOLDFAST_CLIENT_FD") ? "client" : "-",
                   getenv("HOLDFAST_ALL_BACKUPS") ? "all" : "-");
            fflush(stdout);
        } else if (!strncmp(word, "over ", 5)) {
            /* Writes over a file, as malware that was quick would; tells whether that was refused. */
            HANDLE file = CreateFileA(word + 5, GENERIC_WRITE, 7, NULL, OPEN_EXISTING, 0, NULL);
            printf(file == INVALID_HANDLE_VALUE ? "refused\n" : "written\n");
            fflush(stdout);
            if (file != INVALID_HANDLE_VALUE) CloseHandle(file);
        } else if (!strncmp(word, "hold ", 5)) {
            /* Lets nobody else open a file, until the end; tells if it could not. */
            HANDLE file = CreateFileA(word + 5, GENERIC_READ, 0, NULL, OPEN_EXISTING, 0, NULL);
            if (file == INVALID_HANDLE_VALUE) { printf("not held\n"); fflush(stdout); }
        } else if (!strcmp(word, "self")) {
            /* The same with its own file, and tells where that is. */
            char own[1024];
            GetModuleFileNameA(NULL, own, sizeof own);
            HANDLE file = CreateFileA(own, GENERIC_WRITE, 7, NULL, OPEN_EXISTING, 0, NULL);
            printf("%s %s %s\n", own, file == INVALID_HANDLE_VALUE ? "refused" : "written", DeleteFileA(own) ? "gone" : "stays");
            fflush(stdout);
        } else return 99;
    }
    return 0;
}
