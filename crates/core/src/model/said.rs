//! Words of other programs that something is decided by, because their APIs tell it in no other way: what each means, and where
//! it is written. Whoever speaks to such a program looks here once, and hands on the code; nothing else reads words.

use crate::error::Code;

/// Whose words they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    Talos,
    Kubernetes,
    Velero,
    /// A program in a pod, which repeats what the kernel told it.
    Program,
    /// The library that TLS is spoken with.
    Tls,
}

/// Words of another program. Every table of them is made of these, and what has no source does not compile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Words {
    /// Where there is a `*`, anything may stand.
    text: &'static str,
    /// Repository, file and version; or of which program it was seen.
    source: &'static str,
}

/// Words and where they are written.
pub const fn words(text: &'static str, source: &'static str) -> Words {
    assert!(!text.is_empty() && source.len() > 10, "words have a source");
    Words { text, source }
}

impl Words {
    pub fn are_in(&self, text: &str) -> bool {
        self.place(text).is_some()
    }

    pub fn begin(&self, text: &str) -> bool {
        self.place(text) == Some(0)
    }

    pub fn are(&self, text: &str) -> bool {
        self.text == text
    }

    pub const fn source(&self) -> &'static str {
        self.source
    }

    /// Where they begin in a text.
    fn place(&self, text: &str) -> Option<usize> {
        let mut pieces = self.text.split('*');
        let first = pieces.next()?;
        let begin = text.find(first)?;
        let mut rest = text.get(begin + first.len()..)?;
        for piece in pieces {
            rest = rest.get(rest.find(piece)? + piece.len()..)?;
        }
        Some(begin)
    }
}

pub const POD_SECURITY: Words = words(
    "violates PodSecurity",
    "kubernetes/kubernetes staging/src/k8s.io/pod-security-admission/admission/admission.go (81661d5a)",
);
pub const READ_ONLY: Words =
    words("ead-only file system", "EROFS: `Read-only` in glibc and musl, `read-only` in golang/go");
pub const UNKNOWN_AUTHORITY: Words = words(
    "certificate signed by unknown authority",
    "golang/go src/crypto/x509/verify.go, UnknownAuthorityError",
);

/// How much `dd` has copied.
pub const COPIED: [Words; 3] = [
    words(" records in", "mirror/busybox coreutils/dd.c (043b1e5d); GNU coreutils src/dd.c"),
    words(" records out", "mirror/busybox coreutils/dd.c (043b1e5d); GNU coreutils src/dd.c"),
    words(" copied, ", "GNU coreutils src/dd.c, print_xfer_stats"),
];

/// Words, and what they mean.
#[derive(Debug)]
pub struct Saying {
    pub by: By,
    pub code: Code,
    pub words: Words,
}

const fn known(by: By, code: Code, words: Words) -> Saying {
    Saying { by, code, words }
}

const fn saying(by: By, code: Code, text: &'static str, source: &'static str) -> Saying {
    known(by, code, words(text, source))
}

pub const SAYINGS: &[Saying] = &[
    known(By::Talos, Code::StrangerBehind, UNKNOWN_AUTHORITY),
    saying(
        By::Talos,
        Code::NoForwarding,
        "no request forwarding",
        "siderolabs/talos internal/app/apid/pkg/director/director.go (v1.14.0-beta.1)",
    ),
    saying(
        By::Talos,
        Code::AnotherApply,
        "another apply configuration is already in progress",
        "siderolabs/talos internal/app/machined/internal/server/v1alpha1/v1alpha1_server.go (v1.14.0-beta.1)",
    ),
    saying(
        By::Talos,
        Code::NeedsReboot,
        "can't be applied in immediate mode",
        "siderolabs/talos internal/app/machined/pkg/runtime/v1alpha1/v1alpha1_runtime.go (to v1.13; gone in v1.14)",
    ),
    saying(
        By::Talos,
        Code::DeviceBusy,
        "device or resource busy",
        "golang/go src/syscall/zerrors_linux_amd64.go, EBUSY; seen of v1.11.5, whose table may be written by then, or not",
    ),
    saying(
        By::Talos,
        Code::OutOfTable,
        "failed to delete partition: partition *out of range",
        "siderolabs/talos internal/app/storaged/server.go (v1.14.0-beta.1), around siderolabs/go-blockdevice partitioning/gpt/gpt.go (v2.0.32)",
    ),
    saying(
        By::Talos,
        Code::NoSuchFile,
        "no such file or directory",
        "golang/go src/syscall/zerrors_linux_amd64.go, ENOENT",
    ),
    known(By::Kubernetes, Code::PodSecurity, POD_SECURITY),
    saying(
        By::Kubernetes,
        Code::LacksRights,
        "\" cannot * resource \"",
        "kubernetes/kubernetes staging/src/k8s.io/apiserver/pkg/endpoints/handlers/responsewriters/errors.go, forbiddenMessage",
    ),
    saying(
        By::Velero,
        Code::WrongPassword,
        "invalid repository password",
        "kopia/kopia (project-velero/kopia d83462d3, of velero-io/velero main 2026-08), ErrInvalidPassword",
    ),
    saying(
        By::Velero,
        Code::EmptyVolume,
        "volume was empty so no snapshot was taken",
        "velero-io/velero pkg/controller/pod_volume_backup_controller.go (v1.18), OnDataPathCompleted",
    ),
    known(By::Program, Code::ReadOnly, READ_ONLY),
    saying(By::Program, Code::NoSpace, "No space left", "ENOSPC, in glibc and musl"),
    saying(
        By::Program,
        Code::NoSpace,
        "quota exceeded",
        "EDQUOT: `Disk quota exceeded` in glibc, `Quota exceeded` in musl",
    ),
    saying(By::Program, Code::NotPermitted, "Permission denied", "EACCES, in glibc and musl"),
    saying(By::Tls, Code::Certificate, "certificate", "rustls/rustls rustls/src/error.rs, Display (0.23)"),
];

/// What the words mean; of several that are known, what stands first.
pub fn code(by: By, text: &str) -> Option<Code> {
    let known = SAYINGS.iter().filter(|saying| saying.by == by);
    let found = known.filter_map(|saying| Some((saying.words.place(text)?, saying.code)));
    found.min_by_key(|(place, _)| *place).map(|(_, code)| code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_said_has_its_code() {
        let table = [
            (
                By::Talos,
                "connection error: desc = \"transport: authentication handshake failed: tls: failed to verify certificate: x509: \
                 certificate signed by unknown authority\"",
                Some(Code::StrangerBehind),
            ),
            (By::Talos, "no request forwarding", Some(Code::NoForwarding)),
            (By::Talos, "another apply configuration is already in progress", Some(Code::AnotherApply)),
            (
                By::Talos,
                "this config change can't be applied in immediate mode\ndiff: +  # device or resource busy",
                Some(Code::NeedsReboot),
            ),
            (
                By::Talos,
                "failed to write GPT table: failed to delete partition 1: device or resource busy",
                Some(Code::DeviceBusy),
            ),
            (By::Talos, "failed to delete partition: partition 3 out of range", Some(Code::OutOfTable)),
            (By::Talos, "failed to delete partition: no such device", None),
            (By::Talos, "lstat /var/lib/etcd: no such file or directory", Some(Code::NoSuchFile)),
            (
                By::Kubernetes,
                "pods \"x\" is forbidden: violates PodSecurity \"baseline:latest\": privileged",
                Some(Code::PodSecurity),
            ),
            (
                By::Kubernetes,
                "pods is forbidden: User \"u\" cannot list resource \"pods\" in API group \"\" at the cluster scope",
                Some(Code::LacksRights),
            ),
            (By::Kubernetes, "admission webhook \"x\" denied the request: you cannot have a resource", None),
            (By::Kubernetes, "no request forwarding", None),
            (By::Velero, "error to connect to repo: invalid repository password", Some(Code::WrongPassword)),
            (By::Velero, "volume was empty so no snapshot was taken", Some(Code::EmptyVolume)),
            (By::Program, "dd: can't open '/data/probe': Read-only file system", Some(Code::ReadOnly)),
            (By::Program, "mkdir /data/x: read-only file system", Some(Code::ReadOnly)),
            (By::Program, "dd: error writing '/data/probe': No space left on device", Some(Code::NoSpace)),
            (By::Program, "dd: error writing '/data/probe': Disk quota exceeded", Some(Code::NoSpace)),
            (By::Program, "dd: can't open '/data/probe': Permission denied", Some(Code::NotPermitted)),
            (
                By::Tls,
                "client error (Connect): invalid peer certificate: UnknownIssuer",
                Some(Code::Certificate),
            ),
            (By::Tls, "tcp connect error: Connection refused (os error 111)", None),
            (By::Talos, "", None),
        ];
        for (by, text, expected) in table {
            assert_eq!(code(by, text), expected, "{text}");
        }
        for saying in SAYINGS {
            assert!(
                table.iter().any(|(by, _, code)| *by == saying.by && *code == Some(saying.code)),
                "{saying:?}"
            );
            assert!(saying.words.source().len() > 10, "{saying:?} has its source");
        }
    }
}
