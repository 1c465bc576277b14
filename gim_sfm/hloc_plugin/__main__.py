"""hloc's command line with our matchers: python -m gim_sfm.hloc_plugin STAGE ..."""

from gim_sfm.hloc_plugin.stages import main

main()
