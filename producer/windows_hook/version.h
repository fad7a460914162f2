/* As in pyproject.toml. */
#ifndef VERSION_H
#define VERSION_H

#define VERSION_TEXT "0.1.0"
#define VERSION_NUMBERS 0, 1, 0, 0

#endif
