//! Names that a shell may complete, where others are refused with a better message than a list.
use clap::builder::{PossibleValue, StringValueParser, TypedValueParser};
use clap::{Arg, Command};
use espalier::commands::{self as lib, Topic};
use std::ffi::OsStr;

/// A parser that accepts any text and offers these names to completion scripts.
#[derive(Clone)]
pub(crate) struct Known(pub(crate) fn() -> Vec<String>);

impl TypedValueParser for Known {
    type Value = String;

    fn parse_ref(&self, command: &Command, arg: Option<&Arg>, value: &OsStr) -> Result<String, clap::Error> {
        StringValueParser::new().parse_ref(command, arg, value)
    }

    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = PossibleValue> + '_>> {
        // clap keeps names for as long as the program runs.
        Some(Box::new((self.0)().into_iter().map(|name| PossibleValue::new(&*name.leak()))))
    }
}

/// Names of the runtimes.
pub(crate) fn runtimes() -> Vec<String> {
    lib::runtimes().map(str::to_string).collect()
}

/// Names of the arithmetics of processors.
pub(crate) fn arithmetics() -> Vec<String> {
    espalier::deploy::Arithmetic::ALL.iter().map(|(name, _)| name.to_string()).collect()
}

/// Names of the tasks.
pub(crate) fn tasks() -> Vec<String> {
    lib::tasks()
}

/// Names of the architectures.
pub(crate) fn architectures() -> Vec<String> {
    lib::list(Topic::Architectures).into_iter().map(|entry| entry.name).collect()
}

/// Every name that `explain` knows.
pub(crate) fn names() -> Vec<String> {
    lib::explainable()
}
