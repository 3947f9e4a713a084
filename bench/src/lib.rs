//! Loads for measurements: shared by the comparison of speakers, the micro-benchmarks and the count of instructions.

pub mod load;
pub mod rib;
