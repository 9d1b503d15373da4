from tests.database.test_messages import *
