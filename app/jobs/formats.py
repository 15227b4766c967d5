"""The formats of rows and messages, so that workers of several versions can work side by side.

A row carries the lowest format that a worker must know to work on it. A worker claims no row of a newer format: it
leaves the job to workers that know it. A message is a wake-up and nothing else, so a worker heeds one of any format.
"""

FORMAT = 1
"""the newest format of a job's row that this version can work on; count up when an older worker would do it wrong"""

MESSAGE_FORMAT = 1
"""of the message; in its headers, which a worker that does not know them passes over"""

MESSAGE_HEADER = "spear_format"
