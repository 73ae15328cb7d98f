//! Whatever is wrong with what it is given, the binary says what, where and how to mend it, in one error with exit
//! code 1, and leaves everything that was there as it was.
#![cfg(unix)]

mod blocks;
mod changed;
mod disk;
mod fixture;
mod stages;
mod tables;
mod texts;
mod weights;
