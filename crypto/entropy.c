// SPDX-License-Identifier: Apache-2.0
/*
 * Mbed TLS's entropy source (MBEDTLS_ENTROPY_HARDWARE_ALT). With musl its own one opens /dev/random, which blocks on
 * old kernels and is not there in a bare root; getrandom(2) needs no device.
 */
#include <errno.h>
#include <sys/random.h>

#include <mbedtls/entropy.h>

int mbedtls_hardware_poll(void *data, unsigned char *output, size_t len, size_t *olen);

int mbedtls_hardware_poll(void *data, unsigned char *output, size_t len, size_t *olen)
{
	(void)data;
	*olen = 0;
	while (*olen < len) {
		ssize_t n = getrandom(output + *olen, len - *olen, 0);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return MBEDTLS_ERR_ENTROPY_SOURCE_FAILED;
		*olen += (size_t)n;
	}
	return 0;
}
