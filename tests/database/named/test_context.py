from tests.database.test_context import *
