//! What errors say: where in the expression, and which names come near.

/// The place of a byte in the text, counted from 1 in characters.
pub(super) fn place(text: &str, offset: usize) -> String {
    let before = text.get(..offset).unwrap_or(text);
    let (lines, last) =
        before.rsplit_once('\n').map_or((0, before), |(above, last)| (above.matches('\n').count() + 1, last));
    let column = last.chars().count() + 1;
    if text.contains('\n') {
        format!("line {}, column {column}", lines + 1)
    } else {
        format!("column {column}")
    }
}

/// The names that one could have meant, the nearest first.
pub(super) fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let plain = |name: &str| name.replace(['_', '.'], "").to_lowercase();
    let wanted = plain(name);
    let mut found: Vec<(usize, &str)> = known
        .filter_map(|known| {
            let other = plain(known);
            let part = wanted.len() > 2 && (other.contains(&wanted) || wanted.contains(&other));
            let distance = distance(&wanted, &other);
            (part || distance <= wanted.len().div_ceil(3)).then_some((distance, known))
        })
        .collect();
    found.sort();
    found.into_iter().map(|(_, name)| name).take(3).collect()
}

/// How many letters have to change (Levenshtein); names are short.
fn distance(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (i, a) in one.chars().take(64).enumerate() {
        let mut next = vec![i + 1];
        for ((b, above), diagonal) in other.iter().zip(row.iter().skip(1)).zip(&row) {
            let left = next.last().copied().unwrap_or_default();
            next.push((left + 1).min(above + 1).min(diagonal + usize::from(a != *b)));
        }
        row = next;
    }
    row.last().copied().unwrap_or_default()
}

/// What a text that is no CEL at all probably wants to be.
pub(super) fn unreadable(text: &str) -> String {
    let spaced = format!(" {} ", text.replace('\n', " "));
    let word = text.split_once(':').map_or("", |(word, _)| word.trim());
    let hint = if text.contains(['“', '”', '‘', '’']) {
        "write plain quotes: \" or '"
    } else if [" and ", " or ", " not "].iter().any(|word| spaced.contains(word)) {
        "write && for and, || for or, ! for not"
    } else if spaced.contains(" = ") {
        "write == to compare"
    } else if !word.is_empty() && word.chars().all(|c| c.is_ascii_alphabetic()) {
        "the presets with a value are serial:… and wwid:…"
    } else {
        "a selector is CEL, such as disk.transport == \"nvme\" && !system_disk, or a preset: nvme, ssd, serial:…, \
         wwid:…, largest-free-nvme"
    };
    hint.to_owned()
}
