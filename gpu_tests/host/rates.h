// How many multiply-adds a compute unit (SM, CU) can do in one clock, by format of numbers: a table of data sheets.
#pragma once

#include <string>

#include "numbers.h"

namespace gt {

/// Multiply-adds in one clock of one compute unit, dense, products summed in fp32 (fp64 for fp64, 32-bit integers for
/// int8). 0: not known, not in the hardware, or made of several instructions.
struct Rates {
    const char *architecture;
    double fp32, fp64, fp16, int32;  // of the ordinary lanes; fp16 in packed pairs, fp32 too where there are such
    double matrix_fp64, matrix_tf32, matrix_fp16, matrix_bf16, matrix_int8, matrix_fp8, matrix_fp32;
};

/// The row of an architecture as its driver names it (sm_90a, gfx90a:sramecc+:xnack-); null: there is none.
const Rates *rates_of(const std::string &architecture);

/// Of the matrix units of a device with this name: some cards with an architecture sum in fp32 at half its rate.
double matrix_rate(const Rates &rates, Number number, const std::string &device);

/// The clock, in Hz, that a data sheet states the rate of the matrix units at, where that is lower than `told`, the
/// highest that the driver tells; otherwise `told`.
double matrix_clock(Number number, const std::string &device, double told);

}  // namespace gt
