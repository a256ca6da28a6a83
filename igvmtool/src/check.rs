// SPDX-License-Identifier: MIT
//! `igvmtool check`: every problem of a file, each with its code, place and rule, and whether loaders
//! take it.

use crate::failure::{Failure, Outcome};
use crate::opened;
use crate::portability::{Answer, LOADERS, Loader, RULES, ask, loader};
use crate::progress;
use serde::Serialize;
use std::io::Write;
use std::path::PathBuf;
use vm_loaders::igvm::{Code, File, Problem, Severity};

/// Version of the `check --json` schema.
const SCHEMA: u32 = 1;

/// Options of `check`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The IGVM file.
    #[arg(required_unless_present = "explain")]
    file: Option<PathBuf>,
    /// Also asks whether this loader takes the file: qemu-11, openvmm (upstream's), cloud-hypervisor,
    /// kvm-snp or spec. Repeatable.
    #[arg(long = "for", value_name = "LOADER", value_parser = known_loader)]
    loaders: Vec<&'static Loader>,
    /// Prints the rule behind a code, with an example.
    #[arg(long, value_name = "CODE", conflicts_with_all = ["file", "loaders"])]
    explain: Option<String>,
    /// JSON instead of text (schema version 1).
    #[arg(long)]
    json: bool,
}

fn known_loader(name: &str) -> Result<&'static Loader, String> {
    loader(name).ok_or_else(|| {
        let known: Vec<_> = LOADERS.iter().map(|loader| loader.name).collect();
        format!("known loaders are {}", known.join(", "))
    })
}

/// A problem in JSON.
#[derive(Serialize)]
struct Row<'p> {
    code: &'static str,
    severity: &'static str,
    header: Option<u32>,
    file_offset: u64,
    gpa: Option<String>,
    message: &'p str,
    rule: &'static str,
}

/// The report in JSON.
#[derive(Serialize)]
struct Report<'p> {
    schema: u32,
    file: String,
    errors: usize,
    problems: Vec<Row<'p>>,
    loaders: &'p [Answer],
}

/// Prints the problems; errors and loaders that refuse the file are findings.
pub(crate) fn run(args: &Args) -> Result<Outcome, Failure> {
    if let Some(code) = &args.explain {
        return explain(code, args.json);
    }
    let Some(path) = &args.file else {
        return Err(Failure::Usage("a file is needed".into()));
    };
    let mapped = opened::map(path)?;
    let file = opened::read(&mapped)?;
    let (problems, answers) = progress::during("checking", || examine(&file, &args.loaders));
    let errors = problems
        .iter()
        .filter(|problem| problem.severity() == Severity::Error)
        .count();
    let shown = path.display().to_string();
    if args.json {
        crate::output::json(&Report {
            schema: SCHEMA,
            file: shown,
            errors,
            problems: problems.iter().map(row).collect(),
            loaders: &answers,
        })?;
    } else {
        crate::output::stdout(|out| {
            for problem in &problems {
                writeln!(out, "{}: {problem}", problem.severity())?;
            }
            writeln!(
                out,
                "{shown}: {errors} errors, {} others",
                problems.len() - errors
            )?;
            answers.iter().try_for_each(|answer| write_answer(out, answer))
        })?;
    }
    let fine = errors == 0 && answers.iter().all(|answer| answer.loads);
    opened::finish(&mapped, if fine { Outcome::Fine } else { Outcome::Findings })
}

/// The problems of a file and what loaders say.
fn examine(file: &File<'_>, loaders: &[&'static Loader]) -> (Vec<Problem>, Vec<Answer>) {
    let problems = file.check();
    let answers = loaders
        .iter()
        .map(|&loader| ask(loader, file, &problems))
        .collect();
    (problems, answers)
}

fn row(problem: &Problem) -> Row<'_> {
    Row {
        code: problem.code.id(),
        severity: problem.severity().name(),
        header: problem.header,
        file_offset: problem.file_offset,
        gpa: problem.gpa.map(|gpa| format!("{gpa:#x}")),
        message: &problem.message,
        rule: problem.code.info().rule,
    }
}

fn write_answer(out: &mut impl Write, answer: &Answer) -> std::io::Result<()> {
    let verdict = if answer.loads { "loads" } else { "does not load" };
    writeln!(out, "{}: {verdict}", answer.loader)?;
    let whole = answer.findings.iter().map(|finding| ("file", finding));
    let platforms = answer.platforms.iter().flat_map(|platform| {
        platform
            .findings
            .iter()
            .map(|finding| (platform.platform, finding))
    });
    for (place, finding) in whole.chain(platforms) {
        let header = finding
            .header
            .map_or_else(String::new, |index| format!("header {index}: "));
        writeln!(
            out,
            "  {place}: {}: {header}{} [{}]",
            finding.weight, finding.message, finding.rule
        )?;
    }
    Ok(())
}

/// A rule of the format or of a loader, as `--explain --json` prints it (schema version 1).
#[derive(Serialize)]
struct Explained {
    schema: u32,
    code: &'static str,
    /// `error`, `warning` or `note` of the format; `refused`, `crash`, `differs` or `note` of loaders.
    weight: &'static str,
    /// The loaders that have the rule; none for a rule of the format.
    loaders: &'static [&'static str],
    rule: &'static str,
    example: &'static str,
    /// Where a loader's rule was read.
    source: Option<&'static str>,
}

impl Explained {
    fn of(code: &str) -> Option<Self> {
        if let Some(code) = Code::from_id(code) {
            let info = code.info();
            return Some(Self {
                schema: SCHEMA,
                code: info.id,
                weight: info.severity.name(),
                loaders: &[],
                rule: info.rule,
                example: info.example,
                source: None,
            });
        }
        let rule = RULES.iter().find(|rule| rule.id == code)?;
        Some(Self {
            schema: SCHEMA,
            code: rule.id,
            weight: rule.weight.name(),
            loaders: rule.loaders,
            rule: rule.rule,
            example: rule.example,
            source: Some(rule.source),
        })
    }
}

/// Prints the rule behind a code.
fn explain(code: &str, json: bool) -> Result<Outcome, Failure> {
    let Some(found) = Explained::of(code) else {
        return Err(Failure::Usage(format!(
            "there is no code {code}; check prints codes in brackets"
        )));
    };
    if json {
        crate::output::json(&found)?;
        return Ok(Outcome::Fine);
    }
    crate::output::stdout(|out| {
        let whose = match found.loaders {
            [] => String::new(),
            loaders => format!(" for {}", loaders.join(", ")),
        };
        writeln!(out, "{} ({}{whose})", found.code, found.weight)?;
        writeln!(out, "  rule     {}\n  example  {}", found.rule, found.example)?;
        match found.source {
            Some(source) => writeln!(out, "  source   {source}"),
            None => Ok(()),
        }
    })?;
    Ok(Outcome::Fine)
}
