// SPDX-License-Identifier: MIT
//! `build` for isolated guests: the shipped manifests, what lies beside the file, and every refusal with
//! its place.

use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;
use vm_loaders::igvm::{File, Severity};

const OVMF: &str = "/usr/share/ovmf/OVMF.fd";

struct Dir(tempfile::TempDir);

impl Dir {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, bytes).unwrap();
        path
    }

    /// A UEFI image as far as building looks at it: a volume with a SEC core in PE form.
    fn firmware(&self) -> PathBuf {
        const VOLUME: usize = 0x5E_0000;
        let mut image = vec![0; 0x60_0000];
        let mut put = |at: usize, bytes: &[u8]| image[at..at + bytes.len()].copy_from_slice(bytes);
        put(VOLUME + 32, &0x2_0000u64.to_le_bytes());
        put(VOLUME + 40, b"_FVH");
        put(VOLUME + 48, &72u16.to_le_bytes());
        let file = VOLUME + 72;
        put(file + 18, &[3, 0, 0x1C, 0x04, 0]);
        put(file + 24, &[0x04, 0x04, 0, 0x10]);
        let executable = file + 28;
        put(executable, b"MZ");
        put(executable + 0x3C, &0x80u32.to_le_bytes());
        put(executable + 0x80, b"PE\0\0");
        put(executable + 0x80 + 40, &0x240u32.to_le_bytes());
        self.write("MSVM.fd", image)
    }

    /// Runs `build`; exit code and errors.
    fn build(&self, manifest: &Path, resource: &str, more: &[&str]) -> (Option<i32>, String, String) {
        let output = self.path("out.igvm");
        let mut command = Command::new(env!("CARGO_BIN_EXE_igvmtool"));
        command.args(["build", "-m", s(manifest), "-o", s(&output)]);
        if !resource.is_empty() {
            command.args(["-r", resource]);
        }
        let done = command.args(more).output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (done.status.code(), text(done.stdout), text(done.stderr))
    }

    fn built(&self) -> Vec<u8> {
        std::fs::read(self.path("out.igvm")).unwrap()
    }
}

fn s(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn shipped(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../manifests")
        .join(name)
}

fn ok(done: (Option<i32>, String, String)) -> String {
    assert_eq!(done.0, Some(0), "{}", done.2);
    done.1
}

fn errors(bytes: &[u8]) -> Vec<String> {
    let file = File::read(bytes).unwrap();
    let problems = file.check().into_iter();
    problems
        .filter(|p| p.severity() == Severity::Error)
        .map(|p| p.to_string())
        .collect()
}

fn platforms(bytes: &[u8]) -> Vec<&'static str> {
    let file = File::read(bytes).unwrap();
    file.platforms()
        .iter()
        .map(|platform| platform.isolation.name())
        .collect()
}

#[test]
fn the_uefi_manifest_builds_without_a_filter_and_documents_lie_beside_it() {
    let dir = Dir::new();
    let resource = format!("uefi={}", s(&dir.firmware()));
    let json = ok(dir.build(&shipped("uefi-x64.json"), &resource, &["--json", "--embed-corim"]));
    let json: Value = serde_json::from_str(&json).unwrap();
    let bytes = dir.built();
    assert_eq!(platforms(&bytes), ["vsm", "tdx", "snp"]);
    assert_eq!(errors(&bytes), [""; 0]);
    assert_eq!(
        (&json["schema"], &json["bytes"]),
        (&1.into(), &bytes.len().into())
    );
    // The judge reads the same file and measures TDX as we do.
    let judge = igvm::IgvmFile::new_from_binary(&bytes, None).unwrap();
    let mrtd = igvm::measurement::generate_tdx_measurement(judge.directives(), 2).unwrap();
    let hex: String = mrtd.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(json["platforms"][1]["launch_digest"], hex);
    for (file, platform) in [("out-tdx.cbor", 1), ("out-snp.cbor", 2)] {
        let document = std::fs::read(dir.path(file)).unwrap();
        let digest = json["platforms"][platform]["launch_digest"].as_str().unwrap();
        let hex: String = document.iter().map(|byte| format!("{byte:02x}")).collect();
        assert!(hex.contains(digest), "{file}");
        let embedded = bytes.windows(document.len()).any(|window| window == document);
        assert!(embedded, "{file} is in the file, too");
    }
    let snp = File::read(&bytes)
        .unwrap()
        .plan(launch_plan::Isolation::Snp)
        .unwrap();
    assert_eq!(
        (snp.facts.policy, snp.facts.shared_gpa_boundary),
        (Some(0xB_001F), 1 << 39)
    );
}

#[test]
fn the_ovmf_manifest_makes_one_file_for_five_platforms_and_equals_wrap() {
    const NAME: &str = "the_ovmf_manifest_makes_one_file_for_five_platforms_and_equals_wrap";
    if !Path::new(OVMF).exists() {
        println!("skipped: {NAME}: Debian's package ovmf is not installed");
        return;
    }
    let dir = Dir::new();
    ok(dir.build(&shipped("ovmf-x64.json"), &format!("ovmf={OVMF}"), &[]));
    let built = dir.built();
    assert_eq!(platforms(&built), ["native", "sev", "sev-es", "snp", "tdx"]);
    assert_eq!(errors(&built), [""; 0]);
    let wrapped = dir.path("wrapped.igvm");
    let mut command = Command::new(env!("CARGO_BIN_EXE_igvmtool"));
    command.args([
        "wrap",
        OVMF,
        "-o",
        s(&wrapped),
        "--vp-count",
        "4",
        "--policy",
        "tdx=2",
    ]);
    for platform in ["native", "sev", "sev-es", "sev-snp", "tdx"] {
        command.args(["--platform", platform]);
    }
    let done = command.output().unwrap();
    assert!(done.status.success(), "{done:?}");
    assert_eq!(built, std::fs::read(&wrapped).unwrap());
}

#[test]
fn provenance_names_every_input_and_is_the_same_everywhere() {
    let dir = Dir::new();
    let resource = format!("uefi={}", s(&dir.firmware()));
    let args = ["--guest", "tdx", "--provenance"];
    ok(dir.build(&shipped("uefi-x64.json"), &resource, &args));
    let first = dir.built();
    let text = std::fs::read_to_string(dir.path("out.igvm.provenance.json")).unwrap();
    let json: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(json["manifest"]["name"], "uefi-x64.json");
    assert_eq!(json["resources"][0]["name"], "uefi");
    let sum = Command::new("sha256sum")
        .arg(dir.path("MSVM.fd"))
        .output()
        .unwrap()
        .stdout;
    let sum = std::str::from_utf8(&sum[..64]).unwrap();
    assert_eq!(json["resources"][0]["sha256"], sum);
    let line = format!("uefi sha256:{sum}");
    assert!(first.windows(line.len()).any(|window| window == line.as_bytes()));
    assert_eq!(errors(&first), [""; 0]);
    let other = Dir::new();
    let resource = format!("uefi={}", s(&other.firmware()));
    ok(other.build(&shipped("uefi-x64.json"), &resource, &args));
    assert_eq!(first, other.built());
}

fn manifest(isolation: &str, image: &str) -> String {
    format!(
        "{{\"guest_arch\": \"x64\", \"guest_configs\": [{{\n\"guest_svn\": 3, \"max_vtl\": 0,\n\
         \"isolation_type\": {isolation},\n\"image\": {image}}}]}}"
    )
}

#[test]
fn a_vbs_guest_carries_its_measurement_and_measure_compares_it() {
    let dir = Dir::new();
    let resource = format!("uefi={}", s(&dir.firmware()));
    let text = manifest(
        r#"{"vbs": {"enable_debug": true}}"#,
        r#"{"uefi": {"config_type": "none"}}"#,
    );
    let path = dir.write("m.json", text);
    let json: Value = serde_json::from_str(&ok(dir.build(&path, &resource, &["--json"]))).unwrap();
    let bytes = dir.built();
    assert_eq!(errors(&bytes), [""; 0]);
    let plan = File::read(&bytes)
        .unwrap()
        .plan(launch_plan::Isolation::Vsm)
        .unwrap();
    let measurement = plan.endorsements.vbs_measurement.unwrap();
    assert_eq!((measurement.security_version, measurement.policy_flags), (3, 1));
    let hex: String = measurement.digest[..32]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    assert_eq!(json["platforms"][0]["launch_digest"], hex);
    let measure = |path: &Path| {
        let done = Command::new(env!("CARGO_BIN_EXE_igvmtool"))
            .args(["measure", s(path)])
            .output()
            .unwrap();
        String::from_utf8(done.stdout).unwrap()
    };
    let shown = measure(&dir.path("out.igvm"));
    assert!(!shown.contains("warning"), "{shown}");
    // Another page, and the measurement is wrong.
    let mut tampered = bytes.clone();
    let last = tampered.len() - 1;
    tampered[last] ^= 1;
    let shown = measure(&dir.write("tampered.igvm", tampered));
    assert!(
        shown.contains("the file's vbs measurement names digest"),
        "{shown}"
    );
}

#[test]
fn combinations_that_nobody_defined_are_refused_at_their_place() {
    let dir = Dir::new();
    let resource = format!("uefi={}", s(&dir.firmware()));
    let snp = |boundary: &str, injection: &str| {
        format!(
            r#"{{"snp": {{"shared_gpa_boundary_bits": {boundary}, "policy": 196608, "enable_debug": false, "injection_type": "{injection}"}}}}"#
        )
    };
    let uefi = r#"{"uefi": {"config_type": "igvm"}}"#;
    let plain = r#"{"uefi": {"config_type": "none"}}"#;
    for (isolation, image, wanted) in [
        (
            snp("39", "restricted"),
            plain,
            "4:10: an isolated uefi needs config_type igvm",
        ),
        (
            snp("39", "normal"),
            uefi,
            "4:10: an isolated uefi needs injection_type restricted",
        ),
        (
            snp("null", "restricted"),
            uefi,
            "4:10: an isolated uefi needs shared_gpa_boundary_bits",
        ),
        (
            snp("51", "restricted"),
            uefi,
            "4:10: resource uefi: a shared boundary of 51 bits cannot be mapped",
        ),
        (
            r#"{"sev": {}}"#.to_owned(),
            uefi,
            "4:10: image uefi cannot be built with isolation sev; see the table",
        ),
        (
            snp("39", "restricted"),
            r#"{"ovmf": {}}"#,
            "4:10: image ovmf needs normal injection and shared_gpa_boundary_bits null",
        ),
        (
            r#"{"sev_es": {}}"#.to_owned(),
            r#"{"ovmf": {"processor_count": 0}}"#,
            "4:10: ovmf processor_count is 0; it must be from 1 to 512",
        ),
        (
            r#"{"vbs": {"enable_debug": false}}"#.to_owned(),
            r#"{"ovmf": {}}"#,
            "needs the resource ovmf",
        ),
        (
            r#"{"sev": {"policy": "5"}}"#.to_owned(),
            uefi,
            "3:40: invalid value: string \"5\"",
        ),
    ] {
        let path = dir.write("m.json", manifest(&isolation, image));
        let (code, _, err) = dir.build(&path, &resource, &[]);
        assert_eq!(code, Some(2), "{err}");
        assert!(err.contains(wanted), "{wanted}\n{err}");
    }
}
