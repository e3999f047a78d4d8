"""Alignment: permuting the neurons of one network so that its weights come close to another's."""
