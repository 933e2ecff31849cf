//! What fuzz targets compare the gate with: readers written apart from its own, and a gate to drive.

pub mod answers;
pub mod driver;
pub mod readings;
pub mod requests;
pub mod upstream;
