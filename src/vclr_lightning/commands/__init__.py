"""The subcommands of ``vclr``, one module each: ``add_arguments(parser)`` and ``run(args)``."""
