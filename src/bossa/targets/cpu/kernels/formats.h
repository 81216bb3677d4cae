// Weights of 8, 6 and 4 bits. A matrix is its panels of 16 outputs, one after the other; int8.h, groups.h and ladders.h
// have what is in a panel. A table of rows is [V] fp32 scales, padded to 64 bytes, then [V][D] int8.
#pragma once

#include "groups.h"
#include "int8.h"
#include "ladders.h"
