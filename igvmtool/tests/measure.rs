// SPDX-License-Identifier: MIT
//! `measure`, `wrap`, `sign` and `verify` as a user runs them, on an OVMF-shaped image made here.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// A P-384 private key in PEM (SEC1), made for these tests.
const KEY: &str = include_str!("data/id-key.pem");

struct Dir(tempfile::TempDir);

impl Dir {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }
    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }
    /// A 128 KiB image with SEV metadata (memory, secrets, CPUID) and an AP reset block.
    fn image(&self) -> PathBuf {
        let mut image: Vec<u8> = (0..0x2_0000u32).map(|i| (i >> 12) as u8).collect();
        let mut at = 0x2_0000 - 32;
        let mut put = |bytes: &[u8]| {
            at -= bytes.len();
            image[at..at + bytes.len()].copy_from_slice(bytes);
        };
        put(&[
            0xde, 0x82, 0xb5, 0x96, 0xb2, 0x1f, 0xf7, 0x45, 0xba, 0xea, 0xa3, 0x66, 0xc5, 0x5a, 0x08, 0x2d,
        ]);
        put(&(18u16 + 22 + 22).to_le_bytes());
        put(&[
            0xde, 0x71, 0xf7, 0x00, 0x7e, 0x1a, 0xcb, 0x4f, 0x89, 0x0e, 0x68, 0xc7, 0x7e, 0x2f, 0xb4, 0x4e,
        ]);
        put(&22u16.to_le_bytes());
        put(&0x0080_B004u32.to_le_bytes());
        put(&[
            0x66, 0x65, 0x88, 0xdc, 0x4a, 0x98, 0x98, 0x47, 0xa7, 0x5e, 0x55, 0x85, 0xa7, 0xbf, 0x67, 0xcc,
        ]);
        put(&22u16.to_le_bytes());
        put(&0x1_F000u32.to_le_bytes());
        let mut metadata = b"ASEV".to_vec();
        let words = [
            52, 1, 3, 0x80_0000, 0x2000, 1, 0x80_D000, 0x1000, 2, 0x80_E000, 0x1000, 3u32,
        ];
        metadata.extend(words.iter().flat_map(|w| w.to_le_bytes()));
        image[0x1000..0x1000 + metadata.len()].copy_from_slice(&metadata);
        let path = self.path("fw.fd");
        std::fs::write(&path, image).unwrap();
        path
    }
    /// An SNP file with two VPs.
    fn snp(&self) -> PathBuf {
        let (image, file) = (self.image(), self.path("snp.igvm"));
        ok(&[
            "wrap",
            s(&image),
            "-o",
            s(&file),
            "--platform",
            "snp",
            "--vp-count",
            "2",
        ]);
        file
    }
}

fn s(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn igvmtool(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_igvmtool"))
        .args(args)
        .output()
        .unwrap()
}

/// Runs a command that must succeed; its standard output.
fn ok(args: &[&str]) -> String {
    run(args, 0).0
}

/// Runs a command that must end with `code`; its output and errors.
fn run(args: &[&str], code: i32) -> (String, String) {
    let o = igvmtool(args);
    let text = |b: &[u8]| String::from_utf8(b.to_vec()).unwrap();
    let (out, err) = (text(&o.stdout), text(&o.stderr));
    assert_eq!(o.status.code(), Some(code), "{args:?}\n{out}\n{err}");
    (out, err)
}

fn digest(file: &Path, more: &[&str]) -> String {
    let args: Vec<&str> = ["measure", s(file)]
        .into_iter()
        .chain(more.iter().copied())
        .collect();
    ok(&args).split_whitespace().next().unwrap().to_string()
}

#[test]
fn every_platform_of_a_file_is_measured_and_profiles_that_disagree_are_named() {
    let dir = Dir::new();
    let (image, file) = (dir.image(), dir.path("all.igvm"));
    let platforms = [
        "--platform",
        "native",
        "--platform",
        "sev",
        "--platform",
        "sev-es",
        "--platform",
        "snp",
    ];
    let args: Vec<&str> = ["wrap", s(&image), "-o", s(&file)]
        .into_iter()
        .chain(platforms)
        .collect();
    ok(&args);
    let text = ok(&["measure", s(&file)]);
    for wanted in ["sev (kvm, 1 vp)", "sev-es (kvm, 1 vp)", "snp (kvm, 1 vp)"] {
        assert!(text.contains(wanted), "{wanted}\n{text}");
    }
    // Zero pages without data are ZERO pages for Cloud Hypervisor.
    assert!(text.contains("cloud-hypervisor reads it differently"), "{text}");
    assert!(text.contains("page 0x800000 normal (zeros)"), "{text}");
    // Plain SEV: the digest of the concatenated pages, which is that of the image.
    let sum = Command::new("sha256sum").arg(&image).output().unwrap().stdout;
    assert_eq!(digest(&file, &["--platform", "sev"]).as_bytes(), &sum[..64]);
}

#[test]
fn json_has_a_schema_and_the_trace_ends_with_the_digest() {
    let dir = Dir::new();
    let file = dir.snp();
    let json: serde_json::Value =
        serde_json::from_str(&ok(&["measure", s(&file), "--json", "--trace"])).unwrap();
    assert_eq!(json[0]["schema"], 1);
    assert_eq!(json[0]["vp_count"], 2);
    let trace = json[0]["trace"].as_array().unwrap();
    assert_eq!(trace.len(), 32 + 2 + 1 + 1 + 2);
    assert_eq!(trace.last().unwrap()["digest"], json[0]["digest"]);
    assert_eq!(trace.last().unwrap()["step"], "vmsa of vp 1 at 0xfffffffff000");
    assert_eq!(json[0]["digest"].as_str().unwrap(), digest(&file, &[]));
}

#[test]
fn a_file_without_a_digest_or_an_unknown_profile_is_a_usage_error() {
    let dir = Dir::new();
    let (image, file) = (dir.image(), dir.path("native.igvm"));
    ok(&["wrap", s(&image), "-o", s(&file), "--platform", "native"]);
    let (_, err) = run(&["measure", s(&file)], 2);
    assert!(
        err.contains("no platform of the file has a launch digest"),
        "{err}"
    );
    let (_, err) = run(&["measure", s(&file), "--profile", "mine"], 2);
    assert!(err.contains("known profiles are kvm, file-order"), "{err}");
    let (_, err) = run(&["measure", s(&dir.snp()), "--vp-count", "1"], 2);
    assert!(
        err.contains("the image has a context for vp 1, but the guest has 1 virtual processors"),
        "{err}"
    );
}

#[test]
fn a_signed_file_keeps_its_digest_and_carries_a_block_for_it() {
    let dir = Dir::new();
    let (file, signed, key) = (dir.snp(), dir.path("signed.igvm"), dir.path("key.pem"));
    std::fs::write(&key, KEY).unwrap();
    ok(&[
        "sign",
        s(&file),
        "-o",
        s(&signed),
        "--id-key",
        s(&key),
        "--author-key",
        s(&key),
        "--svn",
        "7",
    ]);
    assert_eq!(digest(&file, &[]), digest(&signed, &[]));
    let (_, err) = run(&["sign", s(&signed), "-o", s(&file), "--id-key", s(&key)], 2);
    assert!(
        err.contains("the file has an id block already; --replace drops it"),
        "{err}"
    );
    assert_eq!(
        ok(&["check", s(&signed)])
            .lines()
            .last()
            .unwrap()
            .split(": ")
            .last(),
        Some("0 errors, 0 others")
    );
}

#[test]
fn a_detached_signature_gives_the_same_file_as_signing_here() {
    use p384::ecdsa::signature::Signer;
    use p384::pkcs8::EncodePublicKey;
    let dir = Dir::new();
    let (file, here, there) = (dir.snp(), dir.path("here.igvm"), dir.path("there.igvm"));
    let (key, block, signature, public) = (dir.path("k"), dir.path("b"), dir.path("s"), dir.path("p"));
    std::fs::write(&key, KEY).unwrap();
    ok(&["sign", s(&file), "-o", s(&here), "--id-key", s(&key)]);
    ok(&["sign", s(&file), "--emit-block", s(&block)]);
    let secret = p384::ecdsa::SigningKey::from(&p384::SecretKey::from_sec1_pem(KEY).unwrap());
    let made: p384::ecdsa::Signature = secret.sign(&std::fs::read(&block).unwrap());
    std::fs::write(&signature, made.to_der().as_bytes()).unwrap();
    let pem = secret
        .verifying_key()
        .to_public_key_pem(p384::pkcs8::LineEnding::LF)
        .unwrap();
    std::fs::write(&public, pem).unwrap();
    ok(&[
        "sign",
        s(&file),
        "-o",
        s(&there),
        "--signature",
        s(&signature),
        "--public-key",
        s(&public),
    ]);
    assert_eq!(std::fs::read(&here).unwrap(), std::fs::read(&there).unwrap());
    let mut wrong = std::fs::read(&signature).unwrap();
    *wrong.last_mut().unwrap() ^= 1;
    std::fs::write(&signature, wrong).unwrap();
    let args = [
        "sign",
        s(&file),
        "-o",
        s(&there),
        "--signature",
        s(&signature),
        "--public-key",
        s(&public),
    ];
    let (_, err) = run(&args, 2);
    assert!(
        err.contains("the signature of the id block does not verify with its key"),
        "{err}"
    );
}

/// A report with the file's digest and policy.
fn report(file: &Path, policy: u64) -> Vec<u8> {
    let mut report = vec![0; 0x4A0];
    report[0] = 2;
    report[8..16].copy_from_slice(&policy.to_le_bytes());
    let hex = digest(file, &[]);
    for (i, byte) in report[0x90..0xC0].iter_mut().enumerate() {
        *byte = u8::from_str_radix(&hex[2 * i..2 * i + 2], 16).unwrap();
    }
    report
}

#[test]
fn verify_says_why_a_report_does_not_match() {
    let dir = Dir::new();
    let (file, path) = (dir.snp(), dir.path("report.bin"));
    std::fs::write(&path, report(&file, 0x30000)).unwrap();
    assert!(ok(&["verify", s(&file), "--report", s(&path)]).contains("matches"));
    std::fs::write(&path, report(&file, 0xB0000)).unwrap();
    let (out, _) = run(&["verify", s(&file), "--report", s(&path)], 1);
    assert!(
        out.contains("the report has policy 0xb0000, the file 0x30000"),
        "{out}"
    );
    let (out, _) = run(
        &[
            "verify",
            s(&file),
            "--digest",
            &digest(&file, &["--profile", "cloud-hypervisor"]),
        ],
        1,
    );
    let wanted = "it is the digest of this image when pages without data are ZERO pages, as igvmmeasure-native-zero and \
                  cloud-hypervisor read it; the first difference from a launch through kvm is step 32";
    assert!(out.contains(wanted), "{out}");
    let (out, _) = run(
        &[
            "verify",
            s(&file),
            "--digest",
            &digest(&file, &["--vp-count", "3"]),
        ],
        1,
    );
    assert!(
        out.contains("it is the digest of this image when the guest has 3 vps instead of 2"),
        "{out}"
    );
    let (_, err) = run(&["verify", s(&file), "--report", s(&file)], 3);
    assert!(
        err.contains("a sev-snp attestation report has 0x4a0 bytes"),
        "{err}"
    );
}

#[test]
fn verify_against_a_good_file_names_the_first_tampered_step() {
    let dir = Dir::new();
    let good = dir.snp();
    let mut image = std::fs::read(dir.path("fw.fd")).unwrap();
    image[0x5123] ^= 1;
    std::fs::write(dir.path("fw.fd"), &image).unwrap();
    let bad = dir.path("bad.igvm");
    ok(&[
        "wrap",
        s(&dir.path("fw.fd")),
        "-o",
        s(&bad),
        "--platform",
        "snp",
        "--vp-count",
        "2",
    ]);
    let (out, _) = run(&["verify", s(&bad), "--against", s(&good)], 1);
    assert!(
        out.contains("first difference: step 5: page 0xfffe5000 normal"),
        "{out}"
    );
    assert!(ok(&["verify", s(&good), "--against", s(&good)]).contains("matches"));
}

#[test]
fn wrap_refuses_what_cannot_be_wrapped() {
    let dir = Dir::new();
    let (junk, out) = (dir.path("junk.fd"), dir.path("out.igvm"));
    std::fs::write(&junk, vec![0; 0x2_0000]).unwrap();
    let (_, err) = run(&["wrap", s(&junk), "-o", s(&out), "--platform", "native"], 3);
    assert!(err.contains("no ovmf table footer"), "{err}");
    let (_, err) = run(&["wrap", s(&junk), "-o", s(&out), "--platform", "cca"], 2);
    assert!(
        err.contains("known platforms are native, sev, sev-es, sev-snp and tdx"),
        "{err}"
    );
    assert!(!out.exists());
}

#[test]
fn measure_against_says_whose_digest_it_is() {
    let dir = Dir::new();
    let file = dir.snp();
    let against = |digest: &str, code| run(&["measure", s(&file), "--against", digest], code).0;
    let own = against(&digest(&file, &[]), 0);
    assert_eq!(own, "snp: it is what a launch through kvm gives\n");
    let five = against(&digest(&file, &["--vp-count", "5"]), 1);
    assert!(five.contains("the guest has 5 vps instead of 2"), "{five}");
    let zero = digest(&file, &["--profile", "igvmmeasure-native-zero"]);
    assert!(against(&zero, 1).contains("pages without data are ZERO pages"));
    let nothing = against(&"5a".repeat(48), 1);
    assert!(nothing.contains("the contents differ"), "{nothing}");
    let (_, err) = run(&["measure", s(&file), "--against", "5a5a"], 2);
    assert!(
        err.contains("no platform that was asked for has digests of 2 bytes"),
        "{err}"
    );
    let (_, err) = run(&["measure", s(&file), "--against", "xyz"], 2);
    assert!(err.contains("a digest is an even number of hex digits"), "{err}");
    let (json, _) = run(&["measure", s(&file), "--against", &zero, "--json"], 1);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json[0]["schema"], 1);
    assert_eq!(json[0]["explanation"]["profiles"][0], "igvmmeasure-native-zero");
    assert!(
        json[0]["explanation"]["first_difference"]
            .as_str()
            .unwrap()
            .starts_with("step 32")
    );
}

#[test]
fn written_files_and_verdicts_are_described_in_json() {
    let dir = Dir::new();
    let (image, file, key) = (dir.image(), dir.path("w.igvm"), dir.path("k.pem"));
    std::fs::write(&key, KEY).unwrap();
    let wrapped = ok(&[
        "wrap",
        s(&image),
        "-o",
        s(&file),
        "--platform",
        "sev",
        "--platform",
        "snp",
        "--policy",
        "snp=0xb0000",
        "--json",
    ]);
    let wrapped: serde_json::Value = serde_json::from_str(&wrapped).unwrap();
    assert_eq!(wrapped["schema"], 1);
    assert_eq!(wrapped["bytes"], std::fs::metadata(&file).unwrap().len());
    let snp = digest(&file, &["--platform", "snp"]);
    assert_eq!(wrapped["platforms"][1]["launch_digest"], snp);
    let signed = dir.path("signed.igvm");
    let made = ok(&["sign", s(&file), "-o", s(&signed), "--id-key", s(&key), "--json"]);
    let made: serde_json::Value = serde_json::from_str(&made).unwrap();
    assert_eq!(made["platforms"][1]["signed"], true);
    assert_eq!(made["platforms"][0]["signed"], false);
    let block = dir.path("block");
    let emitted = ok(&["sign", s(&file), "--emit-block", s(&block), "--json"]);
    let emitted: serde_json::Value = serde_json::from_str(&emitted).unwrap();
    assert_eq!(
        (&emitted["policy"], &emitted["launch_digest"]),
        (&"0xb0000".into(), &snp.clone().into())
    );
    let verdict = ok(&["verify", s(&file), "--digest", &snp, "--json"]);
    let verdict: serde_json::Value = serde_json::from_str(&verdict).unwrap();
    assert_eq!(
        (&verdict["matches"], &verdict["schema"]),
        (&true.into(), &1.into())
    );
    let (_, err) = run(
        &[
            "wrap",
            s(&image),
            "-o",
            s(&file),
            "--platform",
            "sev",
            "--platform",
            "snp",
            "--policy",
            "5",
        ],
        2,
    );
    assert!(err.contains("say which, for example --policy snp=0x5"), "{err}");
}

#[test]
fn signing_keeps_unknown_headers_and_unused_bytes() {
    let dir = Dir::new();
    let (image, file) = (dir.image(), dir.path("p.igvm"));
    let manifest = dir.path("m.json");
    let text = r#"{"guest_arch": "x64", "guest_configs": [{"guest_svn": 1, "max_vtl": 0,
        "isolation_type": {"snp": {"shared_gpa_boundary_bits": null, "policy": 196608, "enable_debug": false,
        "injection_type": "normal"}}, "image": {"ovmf": {"processor_count": 2}}}]}"#;
    std::fs::write(&manifest, text).unwrap();
    let resource = format!("ovmf={}", s(&image));
    ok(&[
        "build",
        "-m",
        s(&manifest),
        "-r",
        &resource,
        "-o",
        s(&file),
        "--provenance",
    ]);
    let before = std::fs::read(&file).unwrap();
    let (signed, key) = (dir.path("signed.igvm"), dir.path("k.pem"));
    std::fs::write(&key, KEY).unwrap();
    ok(&["sign", s(&file), "-o", s(&signed), "--id-key", s(&key)]);
    let after = std::fs::read(&signed).unwrap();
    assert_eq!(after.len(), before.len() + 8 + 696);
    let record = b"igvmtool ";
    let has = |bytes: &[u8]| bytes.windows(record.len()).any(|w| w == record);
    assert!(has(&before) && has(&after), "the optional record stays");
    // Signing again with another version only changes the block.
    let again = dir.path("again.igvm");
    ok(&[
        "sign",
        s(&signed),
        "-o",
        s(&again),
        "--id-key",
        s(&key),
        "--svn",
        "9",
        "--replace",
    ]);
    let third = std::fs::read(&again).unwrap();
    assert_eq!(third.len(), after.len());
    let headers = after.len() - (before.len() - before.iter().rposition(|b| *b != 0).unwrap());
    assert!(after[..headers] != third[..headers]);
    assert_eq!(digest(&again, &[]), digest(&file, &[]));
}
