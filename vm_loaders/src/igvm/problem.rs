// SPDX-License-Identifier: MIT
//! One finding about a file, and a bounded list of them.
//!
//! Always true: a problem says what is wrong with which values, and where: header index, file offset and
//! gpa as far as they apply. A list holds at most [`MAX_PROBLEMS`] entries however broken the file is.
//! Not here: the rules ([`super::Code`]).

use super::codes::{Code, Severity};
use std::fmt::{Display, Formatter};

/// How many problems a list keeps before it only counts.
pub const MAX_PROBLEMS: usize = 1000;

/// Something about a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Which rule.
    pub code: Code,
    /// Index of the variable header, from 0 over all headers; `None` for the file as a whole.
    pub header: Option<u32>,
    /// Offset in the file, in bytes.
    pub file_offset: u64,
    /// Guest physical address, where one is concerned.
    pub gpa: Option<u64>,
    /// What is wrong, with the values.
    pub message: String,
}

impl Problem {
    /// Severity of the code.
    pub fn severity(&self) -> Severity {
        self.code.severity()
    }

    /// A problem of the file as a whole.
    pub(super) fn file(code: Code, file_offset: u64, message: impl Into<String>) -> Self {
        Self {
            code,
            header: None,
            file_offset,
            gpa: None,
            message: message.into(),
        }
    }
}

impl Display for Problem {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        match (self.header, self.gpa) {
            (Some(header), Some(gpa)) => {
                write!(
                    f,
                    "header {header} (gpa {gpa:#x}, file offset {:#x}): ",
                    self.file_offset
                )?;
            }
            (Some(header), None) => write!(f, "header {header} (file offset {:#x}): ", self.file_offset)?,
            (None, _) => write!(f, "file offset {:#x}: ", self.file_offset)?,
        }
        write!(f, "{} [{}]", self.message, self.code)
    }
}

impl std::error::Error for Problem {}

/// A bounded list.
#[derive(Debug, Default)]
pub(super) struct Problems {
    list: Vec<Problem>,
    dropped: u64,
    errors: u64,
}

impl Problems {
    pub(super) fn push(&mut self, problem: Problem) {
        self.errors += u64::from(problem.severity() == Severity::Error);
        if self.list.len() < MAX_PROBLEMS {
            self.list.push(problem);
        } else {
            self.dropped += 1;
        }
    }

    /// How many errors were pushed, kept or not.
    pub(super) fn errors(&self) -> u64 {
        self.errors
    }

    /// Whether this rule was reported for this header already.
    pub(super) fn has(&self, code: Code, header: Option<u32>) -> bool {
        self.list
            .iter()
            .any(|problem| problem.code == code && problem.header == header)
    }

    pub(super) fn into_vec(mut self) -> Vec<Problem> {
        if self.dropped > 0 {
            let message = format!("{} more problems are not listed", self.dropped);
            self.list.push(Problem::file(Code::TooManyProblems, 0, message));
        }
        self.list
    }
}

/// A file that cannot be planned: its errors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// At least one problem, errors first among them in file order.
    pub problems: Vec<Problem>,
}

impl Refused {
    pub(super) fn new(mut problems: Vec<Problem>) -> Self {
        problems.sort_by_key(|problem| std::cmp::Reverse(problem.severity()));
        Self { problems }
    }
}

impl Display for Refused {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        let errors = self
            .problems
            .iter()
            .filter(|p| p.severity() == Severity::Error)
            .count();
        if let Some(first) = self.problems.first() {
            first.fmt(f)?;
        }
        if errors > 1 {
            write!(f, "; {} more errors, which the check command lists", errors - 1)?;
        }
        Ok(())
    }
}

impl std::error::Error for Refused {}
