//! What several tests need.

use nodeprep::stack::StackSecret;
use secrecy::SecretString;

pub fn secret(name: &str, data: &[(&str, &str)]) -> StackSecret {
    let data = data.iter().map(|(key, value)| ((*key).to_owned(), SecretString::from(*value))).collect();
    StackSecret { name: name.into(), data }
}
