// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * churn MIB: writes memory in the guest for as long as it runs, from every CPU
 * at once, and checks it: each page holds its own number and how often it was
 * written, at both ends, and each thread knows what it wrote last. A page that
 * is lost, stale or torn while the machine is copied to another one is found.
 * Prints a line for each round of all threads; ends at the first wrong page.
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#define PAGE		4096
#define WORDS		(PAGE / sizeof(uint64_t))
#define MAX_THREADS	16

static struct part {
	uint64_t *pages;
	unsigned long nr_pages;
	unsigned long first;		/* number of its first page */
} parts[MAX_THREADS];

static pthread_barrier_t all_done;

static uint64_t mark(unsigned long page, uint64_t round)
{
	return (round << 32 | page) * 0x9e3779b97f4a7c15u;
}

static void *write_and_check(void *arg)
{
	struct part *part = arg;
	uint64_t round;

	for (round = 1;; round++) {
		unsigned long i;

		for (i = 0; i < part->nr_pages; i++) {
			volatile uint64_t *page = part->pages + i * WORDS;
			uint64_t want = round == 1 ? 0 : mark(part->first + i, round - 1);

			if (page[0] != want || page[WORDS - 1] != want) {
				printf("guest: FAILED: page %lu in round %lu: %lx and %lx, not %lx\n",
				       part->first + i, (unsigned long)round,
				       (unsigned long)page[0], (unsigned long)page[WORDS - 1],
				       (unsigned long)want);
				exit(1);
			}
			page[0] = mark(part->first + i, round);
			page[WORDS - 1] = page[0];
		}
		if (pthread_barrier_wait(&all_done) == PTHREAD_BARRIER_SERIAL_THREAD)
			printf("guest: round %lu is right\n", (unsigned long)round);
		usleep(10000);
	}
	return NULL;
}

int main(int argc, char **argv)
{
	long nr = sysconf(_SC_NPROCESSORS_ONLN);
	unsigned long nr_pages, i;
	uint64_t *memory;

	if (argc != 2 || nr < 1)
		return 2;
	if (nr > MAX_THREADS)
		nr = MAX_THREADS;
	nr_pages = strtoul(argv[1], NULL, 10) * (1 << 20) / PAGE / (unsigned long)nr;
	memory = mmap(NULL, nr_pages * (unsigned long)nr * PAGE, PROT_READ | PROT_WRITE,
		      MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (memory == MAP_FAILED || pthread_barrier_init(&all_done, NULL, (unsigned int)nr))
		return 2;
	setvbuf(stdout, NULL, _IOLBF, 0);
	for (i = 0; i < (unsigned long)nr; i++) {
		pthread_t thread;

		parts[i].first = i * nr_pages;
		parts[i].pages = memory + i * nr_pages * WORDS;
		parts[i].nr_pages = nr_pages;
		if (pthread_create(&thread, NULL, write_and_check, &parts[i]))
			return 2;
	}
	pthread_exit(NULL);
}
