//! Certificates in PEM, and the line that is wrong with them.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;

pub(crate) const HINT: &str = "write the authority's certificate as PEM: from -----BEGIN CERTIFICATE----- to -----END CERTIFICATE-----, \
                        or the path of a file that holds it";
const BEGIN: &str = "-----BEGIN ";
const BEGINS: &str = "-----BEGIN CERTIFICATE-----";
const ENDS: &str = "-----END CERTIFICATE-----";

/// Whether it is PEM itself rather than the path of a file.
pub(crate) fn are_inline(text: &str) -> bool {
    text.contains(BEGIN) || text.trim().contains('\n')
}

/// Finds the first line that is wrong, counted from 1, and why.
pub(crate) fn check(text: &str) -> Result<(), (usize, String)> {
    let mut lines = text.lines().map(str::trim).zip(1_usize..);
    let mut found = 0;
    while let Some((line, number)) = lines.next() {
        if line.starts_with(BEGIN) && line != BEGINS {
            let kind = line.trim_start_matches(BEGIN).trim_end_matches('-');
            return Err((number, format!("this is a {kind}, not a certificate")));
        }
        if line == BEGINS {
            one(number, &mut lines)?;
            found += 1;
        }
    }
    if found == 0 { Err((1, "there is no certificate in it".into())) } else { Ok(()) }
}

/// The rest of a certificate that began at a line.
fn one<'a>(begun: usize, lines: &mut impl Iterator<Item = (&'a str, usize)>) -> Result<(), (usize, String)> {
    let mut body = String::new();
    for (line, number) in lines {
        if line == ENDS {
            let der = BASE64_STANDARD.decode(&body);
            let der = der.map_err(|_| (begun, "the certificate that begins here is cut off".to_owned()))?;
            return match x509_parser::parse_x509_certificate(&der) {
                Ok(([], _)) => Ok(()),
                _ => Err((begun, "what begins here is no X.509 certificate".into())),
            };
        }
        if !line.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+/=".contains(&byte)) {
            return Err((number, "it is not base64".into()));
        }
        body.push_str(line);
    }
    Err((begun, format!("the certificate that begins here has no {ENDS}")))
}
