/* The header stands alone, and may be included twice.
 * build: not here */
#include <camlease.h>

#include <camlease.h>

int main(void)
{
    return CAMLEASE_OK;
}
