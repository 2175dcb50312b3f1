//! The program as its users see it: what it prints, its exit codes, and runs that are interrupted.
mod channels;
mod diagnose;
mod divergence;
mod first_hour;
mod on_data;
mod pack;
mod parameters;
mod program;
mod regression;
mod resume;
mod sensitivity;
mod start;
mod texts;
