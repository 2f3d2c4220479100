"""What jobs share: command line, progress, image sets, result folders. Below: a room per job."""
