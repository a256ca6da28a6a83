// SPDX-License-Identifier: MIT
//! A payload's report on COM1, read by the grammar of `guest_protocol::report`.

use guest_protocol::report::Line;

/// One boot's report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Which payload printed it.
    pub payload: String,
    /// Checks in order: name, whether it holds, details.
    pub checks: Vec<(String, bool, String)>,
    /// Values in order: name, value.
    pub infos: Vec<(String, String)>,
}

impl Report {
    /// Reads the last boot's report in `text`.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut report = None;
        for line in text.lines().map(|line| line.trim_end_matches('\r')) {
            let Some(line) = Line::parse(line) else { continue };
            if let Line::Start { payload, .. } = line {
                report = Some(Self {
                    payload: payload.to_owned(),
                    checks: Vec::new(),
                    infos: Vec::new(),
                });
                continue;
            }
            let Some(report) = &mut report else { continue };
            match line {
                Line::Check {
                    name, ok, details, ..
                } => {
                    report.checks.push((name.to_owned(), ok, details.to_owned()));
                }
                Line::Info { name, details } => report.infos.push((name.to_owned(), details.to_owned())),
                Line::Trap(what) | Line::Panic(what) => return Err(format!("the payload gave up: {what}")),
                Line::Done { ok, failed } => report.check_counts(ok, failed)?,
                Line::Start { .. } => {}
            }
        }
        report.ok_or_else(|| "there is no report".to_owned())
    }

    fn check_counts(&self, ok: u32, failed: u32) -> Result<(), String> {
        let holds = self.checks.iter().filter(|check| check.1).count();
        let counted = (holds, self.checks.len() - holds);
        if counted == (ok as usize, failed as usize) {
            Ok(())
        } else {
            Err(format!(
                "the report counts {ok} ok, {failed} failed, but lists {counted:?}"
            ))
        }
    }

    /// Names and details of the checks that do not hold.
    pub fn failed(&self) -> Vec<String> {
        let failed = self.checks.iter().filter(|check| !check.1);
        failed
            .map(|(name, _, details)| format!("{name}: {details}"))
            .collect()
    }

    /// Fails unless every check holds.
    ///
    /// # Panics
    /// With the checks that do not.
    #[track_caller]
    pub fn assert_all_ok(&self) {
        assert!(!self.checks.is_empty(), "{} checked nothing", self.payload);
        assert_eq!(self.failed(), [""; 0], "{}", self.payload);
    }

    /// The value of an `info` line.
    ///
    /// # Panics
    /// If the report has none of that name.
    #[track_caller]
    pub fn info(&self, name: &str) -> &str {
        let found = self.infos.iter().find(|info| info.0 == name);
        found.map_or_else(
            || panic!("{} gives no {name}: {:?}", self.payload, self.infos),
            |info| &info.1,
        )
    }

    /// Whether a check of that name was made and holds.
    pub fn holds(&self, name: &str) -> bool {
        self.checks.iter().any(|check| check.0 == name && check.1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn last_boot_is_read() {
        let text = "noise\r\nstart: old abi=1\r\nprobe: a: FAIL x\r\nstart: new abi=1\r\nprobe: a: ok\r\ninfo: r12: 0x709000\r\ndone: 1 ok, 0 failed\r\n";
        let report = Report::parse(text).unwrap();
        assert_eq!(report.payload, "new");
        report.assert_all_ok();
        assert!(report.holds("a") && !report.holds("b"));
        assert_eq!(report.info("r12"), "0x709000");
    }

    #[test]
    fn counts_must_agree_and_traps_are_errors() {
        let wrong = Report::parse("start: x abi=1\nprobe: a: ok\ndone: 2 ok, 0 failed\n");
        assert_eq!(
            wrong.unwrap_err(),
            "the report counts 2 ok, 0 failed, but lists (1, 0)"
        );
        let trap = Report::parse("start: x abi=1\ntrap: page fault\n");
        assert_eq!(trap.unwrap_err(), "the payload gave up: page fault");
        assert_eq!(Report::parse("nothing").unwrap_err(), "there is no report");
    }

    #[test]
    #[should_panic(expected = "left: [\"a: x\"]")]
    fn failed_checks_are_listed() {
        Report::parse("start: x abi=1\nprobe: a: FAIL x\ndone: 0 ok, 1 failed\n")
            .unwrap()
            .assert_all_ok();
    }
}
