"""Say what went wrong to the person who can act: what was seen, what was expected, what to do."""


class AssistantError(Exception):
    """Base of every error the product raises on purpose; `exit_code` is the command line's."""

    exit_code = 1


class UsageError(AssistantError):
    """Report a wrong setting, flag or missing extra."""

    exit_code = 2


class IndexUnusable(AssistantError):
    """Report that no index can be opened; the message names the file and the repairing command."""

    exit_code = 3


class NoIndex(IndexUnusable):
    """Report that nothing was ever built here; a damaged index is never reported as this."""


class BuildBusy(IndexUnusable):
    """Report that another process is building into the same index folder."""


class ModelUnusable(IndexUnusable):
    """Report a model folder that is missing, half copied, altered or not loadable offline."""


class StoreDown(IndexUnusable):
    """Report that the server which holds the index is down, slow, refusing or of another version.

    It may be back any moment: no older index is taken instead.
    """


class BadInput(AssistantError):
    """Report a question or file that cannot be taken as it is."""

    exit_code = 4


class NotInGuide(BadInput):
    """Report a document or section that the guide in use does not have."""


class CorpusEmpty(BadInput):
    """Report a corpus in which no file gave any passage; an old index stays in use."""


class QualityDropped(BadInput):
    """Report a build that answers labelled questions worse; the old index stays in use."""
