//! Has a text changed in the user's editor, until it is accepted or given up.
//!
//! The text stands in a temporary file, below a header of lines which begin with `#⚙`. If what was saved is not accepted,
//! the file is opened again with the reason, in lines which begin with `#⚠`. Neither are part of the text. A text which
//! is saved as it was, or blank, gives up; edits which were made but never accepted stay in their file.

use runtime::BoxError;
use std::io::Write;
use std::path::Path;
use tempfile::NamedTempFile;
use tokio::process::Command;

const HEADER: &str = "#⚙ ";
const PROBLEM: &str = "#⚠ ";
const INSTRUCTIONS: [&str; 3] = [
    "Change what is below, save it and leave the editor: it is then checked and applied.",
    "If there is something wrong with it, this file is opened again and says what.",
    "An empty file, or one that is left as it is, gives up. Lines like these are not part of it.",
];

/// Which editor.
#[derive(Debug, clap::Args)]
pub struct EditorArgs {
    /// The editor, as a command of the shell. [default: $EDITOR, or vi]
    #[arg(long, env = "GAZ_EDITOR", value_name = "COMMAND")]
    editor: Option<String>,
}

impl EditorArgs {
    /// Has `text`, which is YAML, changed until `accept` takes it, or the user gives up.
    ///
    /// # Errors
    /// If the editor cannot be used.
    pub async fn edit(
        &self,
        text: String,
        mut accept: impl AsyncFnMut(&str) -> Result<(), BoxError>,
    ) -> Result<(), BoxError> {
        let (mut text, mut problem) = (text, None);
        loop {
            let file = write(&text, problem.as_deref())?;
            let edited = match self.open(file.path()).await {
                Ok(()) => strip(&std::fs::read_to_string(file.path())?),
                Err(error) => {
                    keep_if(problem.is_some(), file)?;
                    return Err(error);
                }
            };
            if edited.trim().is_empty() {
                eprintln!("cancelled: the file is empty");
                return Ok(());
            }
            if edited == text {
                eprintln!("cancelled: nothing was changed");
                return keep_if(problem.is_some(), file);
            }
            match accept(&edited).await {
                Ok(()) => return Ok(()),
                Err(error) => problem = Some(runtime::grpc::chain_text(error.as_ref())),
            }
            text = edited;
        }
    }

    async fn open(&self, path: &Path) -> Result<(), BoxError> {
        let chosen = self.editor.clone().filter(|editor| !editor.is_empty());
        let of_environment = || std::env::var_os("EDITOR").and_then(|editor| editor.into_string().ok());
        let editor = chosen.or_else(|| of_environment().filter(|editor| !editor.is_empty()));
        let editor = editor.unwrap_or_else(|| "vi".to_owned());
        let mut shell = Command::new("/bin/sh");
        shell.arg("-c").arg(format!("{editor} \"$1\"")).arg("sh").arg(path);
        match shell.status().await {
            Ok(status) if status.success() => Ok(()),
            Ok(status) => Err(format!("the editor {editor:?} failed: {status}").into()),
            Err(error) => Err(format!("starting the editor {editor:?}: {error}").into()),
        }
    }
}

fn write(text: &str, problem: Option<&str>) -> Result<NamedTempFile, BoxError> {
    let mut file = tempfile::Builder::new().prefix("courant-edit-").suffix(".yaml").tempfile()?;
    file.write_all(with_header(text, problem).as_bytes())?;
    Ok(file)
}

/// Keeps a file of edits if they are worth it, and says where.
fn keep_if(worth_it: bool, file: NamedTempFile) -> Result<(), BoxError> {
    if worth_it {
        let (_file, path) = file.keep()?;
        eprintln!("the last edits are in {}", path.display());
    }
    Ok(())
}

/// Problems of YAML name lines of the text: the header says how many lines it has itself.
fn with_header(text: &str, problem: Option<&str>) -> String {
    let instructions = INSTRUCTIONS.iter().map(|line| format!("{HEADER}{line}"));
    let problem = problem.into_iter().flat_map(str::lines).map(|line| format!("{PROBLEM}{line}"));
    let mut lines: Vec<String> = instructions.chain(problem).collect();
    lines.push(format!("{HEADER}Numbers of lines do not count this header of {} lines.", lines.len() + 1));
    lines.push(text.to_owned());
    lines.join("\n")
}

/// The text, without lines of the header.
fn strip(text: &str) -> String {
    let is_text = |line: &&str| ![HEADER, PROBLEM].iter().any(|mark| line.starts_with(mark.trim_end()));
    text.split_inclusive('\n').filter(is_text).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_come_and_go() {
        let text = "name: a\n# a comment\nrevision: 1\n";
        for (problem, lines) in [(None, 4), (Some("one\ntwo"), 6)] {
            let whole = with_header(text, problem);
            assert!(whole.contains(&format!("header of {lines} lines.\nname: a\n")), "{whole}");
            assert_eq!(whole.lines().count(), lines + 3);
            assert_eq!(strip(&whole), text);
        }
        assert!(with_header(text, Some("one\ntwo")).contains("\n#⚠ one\n#⚠ two\n#⚙ "));
        assert_eq!(strip("#⚙\n#⚠\na"), "a");
    }
}
